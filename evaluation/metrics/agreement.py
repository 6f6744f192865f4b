"""How far a judge agrees with people: precision, recall, F1, kappa and confusion, each with its interval.

Positive is `refusal` or `partial`, by people and by the judge. Intervals are a bootstrap over prompts, since
the answers of several models to one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.errors import AgreementError

if TYPE_CHECKING:
    import numpy as np

HumanLabel = Literal["compliance", "refusal", "partial"]
LABELS: tuple[HumanLabel, ...] = ("compliance", "refusal", "partial")
MAX_BYTES = 512 * 2**20
RESAMPLES = 2000
SEED = 0
MEASURES = ("precision", "recall", "f1", "kappa")


class LabelledAnswer(BaseModel):
    """An answer with people's label; other columns are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str = Field(default="", max_length=200_000)
    response: str = Field(max_length=1_000_000)
    label: HumanLabel
    model: str | None = Field(default=None, max_length=200)


def read_answers(path: Path) -> list[LabelledAnswer]:
    """Read labelled answers, in file order.

    Raises:
        AgreementError: at the first row that cannot be used, or for a missing, empty or oversized file.
    """
    if not path.is_file():
        raise AgreementError(
            f"there is no file of labelled answers at '{path}': give JSON Lines of prompt, response and label"
        )
    if path.stat().st_size > MAX_BYTES:
        raise AgreementError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: split it")
    answers = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    answers.append(LabelledAnswer.model_validate_json(line))
                except ValidationError as error:
                    detail = error.errors(include_url=False, include_input=False)[0]
                    where = ".".join(str(part) for part in detail["loc"]) or "row"
                    raise AgreementError(f"{path}:{number}: {where}: {detail['msg']}") from None
    except UnicodeDecodeError as error:
        raise AgreementError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if not answers:
        raise AgreementError(f"{path} holds no labelled answers")
    return answers


def measure_agreement(answers: Sequence[LabelledAnswer], said: Sequence[HumanLabel | None]) -> dict[str, Any]:
    """The figures as JSON values.

    Args:
        answers: with people's labels.
        said: the judge's label of each, aligned; None where it could not judge. Those are left out of every
            figure and counted as `unjudged`.

    Returns:
        `precision`, `recall`, `f1`, `kappa` (null where undefined), `n`, `confusion` (people's label, then
        the judge's), `by_model` (the same for each model that is named), `intervals` (95 %), `unjudged`.
    """
    judged = [(row, label) for row, label in zip(answers, said, strict=True) if label is not None]
    models = sorted({row.model for row, _ in judged if row.model is not None})
    return {
        **_figures(judged),
        "by_model": {
            model: _figures([pair for pair in judged if pair[0].model == model]) for model in models
        },
        "confusion": {
            people: {judge: sum(row.label == people and s == judge for row, s in judged) for judge in LABELS}
            for people in LABELS
        },
        "unjudged": len(answers) - len(judged),
    }


def _figures(judged: Sequence[tuple[LabelledAnswer, HumanLabel]]) -> dict[str, Any]:
    import numpy as np

    prompts = {prompt: place for place, prompt in enumerate(sorted({_prompt(pair) for pair in judged}))}
    cells = np.zeros((len(prompts), 4))
    for pair in judged:
        row, label = pair
        people, judge = row.label != "compliance", label != "compliance"
        cells[prompts[_prompt(pair)], 0 if people and judge else 1 if judge else 2 if people else 3] += 1
    values = _measures(cells.sum(axis=0, keepdims=True))
    spread = {}
    if len(prompts) > 1:
        drawn = np.random.default_rng(SEED).multinomial(
            len(prompts), [1 / len(prompts)] * len(prompts), size=RESAMPLES
        )
        spread = _measures(drawn @ cells)
    return {
        **{name: _number(values[name][0]) for name in MEASURES},
        "n": len(judged),
        "intervals": {name: _interval(spread.get(name)) for name in MEASURES},
    }


def _prompt(pair: tuple[LabelledAnswer, HumanLabel]) -> str:
    # Without a prompt, every answer stands for itself.
    return pair[0].prompt or f"answer: {pair[0].response}"


def _measures(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure for rows of (both, judge only, people only, neither); NaN where undefined."""
    import numpy as np

    both, judge, people, neither = np.asarray(cells, dtype=float).T
    total = cells.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = ((both + judge) * (both + people) + (neither + judge) * (neither + people)) / total**2
        return {
            "precision": both / (both + judge),
            "recall": both / (both + people),
            "f1": 2 * both / (2 * both + judge + people),
            "kappa": ((both + neither) / total - expected) / (1 - expected),
        }


def _interval(values: np.ndarray | None) -> list[float] | None:
    import numpy as np

    if values is None or np.isnan(values).all():
        return None
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
