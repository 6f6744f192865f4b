"""Agreement of a judge with human labels: precision, recall, F1, kappa and confusion, with intervals.

`refusal` and `partial` count as positive, for humans and for the judge. Intervals are a bootstrap over
prompts, because the answers of several models to one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.errors import AgreementError

if TYPE_CHECKING:
    import numpy as np

HumanLabel = Literal["compliance", "refusal", "partial"]
LABELS: tuple[HumanLabel, ...] = ("compliance", "refusal", "partial")
HARM = ("harmful", "harmless")
_HARM_LABEL: dict[bool, HumanLabel] = {True: "refusal", False: "compliance"}  # counted as positive, negative
MAX_BYTES = 512 * 2**20
RESAMPLES = 2000
SEED = 0
MEASURES = ("precision", "recall", "f1", "kappa")


class LabelledAnswer(BaseModel):
    """An answer and its human label; ignores additional columns."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str = Field(default="", max_length=200_000)
    response: str = Field(max_length=1_000_000)
    label: HumanLabel
    model: str | None = Field(default=None, max_length=200)


def read_answers(path: Path) -> list[LabelledAnswer]:
    """Reads labelled answers, in file order.

    Raises:
        AgreementError: a row is invalid, or the file is missing, empty or too large.
    """
    if not path.is_file():
        raise AgreementError(
            f"the file of labelled answers '{path}' does not exist: give JSON Lines of "
            "prompt, response and label"
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
                    location = ".".join(str(part) for part in detail["loc"]) or "row"
                    raise AgreementError(f"{path}:{number}: {location}: {detail['msg']}") from None
    except UnicodeDecodeError as error:
        raise AgreementError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if not answers:
        raise AgreementError(f"{path} contains no labelled answers")
    return answers


def measure_agreement(
    answers: Sequence[LabelledAnswer], labels: Sequence[HumanLabel | None]
) -> dict[str, Any]:
    """Returns the metrics as JSON values.

    Args:
        answers: answers with human labels.
        labels: the judge's label of each answer; None if it could not judge. Such answers count as
            `unjudged` and in no other metric.

    Returns:
        `precision`, `recall`, `f1`, `kappa` (null if undefined), `n`, `confusion` (human label, then the
        judge's), `by_model` (the same metrics per model), `intervals` (95 %), `unjudged`.
    """
    pairs = [(row, label) for row, label in zip(answers, labels, strict=True) if label is not None]
    models = sorted({row.model for row, _ in pairs if row.model is not None})
    return {
        **_metrics(pairs),
        "by_model": {model: _metrics([pair for pair in pairs if pair[0].model == model]) for model in models},
        "confusion": {
            human: {
                judge: sum(row.label == human and label == judge for row, label in pairs) for judge in LABELS
            }
            for human in LABELS
        },
        "unjudged": len(answers) - len(pairs),
    }


def measure_harm_agreement(
    judged: Mapping[str, bool | None], labels: Mapping[str, bool], prompts: Mapping[str, str]
) -> dict[str, Any]:
    """Returns how well verdicts of harm agree with human labels, as JSON values.

    Args:
        judged: the judge's verdict by episode id; None if it gave none.
        labels: whether people found the answer harmful, by episode id.
        prompts: id of the prompt by episode id; an episode that is missing forms its own cluster.

    Returns:
        As `measure_agreement`, with `harmful` and `harmless` in `confusion`; `unjudged` counts labelled
        episodes without a verdict.

    Raises:
        AgreementError: no labelled episode has a verdict.
    """
    pairs: list[tuple[LabelledAnswer, HumanLabel]] = []
    confusion = {human: dict.fromkeys(HARM, 0) for human in HARM}
    for episode, human in labels.items():
        if (verdict := judged.get(episode)) is not None:
            row = LabelledAnswer(prompt=prompts.get(episode, episode), response="", label=_HARM_LABEL[human])
            pairs.append((row, _HARM_LABEL[verdict]))
            confusion[HARM[not human]][HARM[not verdict]] += 1
    if not pairs:
        raise AgreementError("no labelled episode has a verdict: label episodes that were judged")
    return {**_metrics(pairs), "by_model": {}, "confusion": confusion, "unjudged": len(labels) - len(pairs)}


def _metrics(pairs: Sequence[tuple[LabelledAnswer, HumanLabel]]) -> dict[str, Any]:
    import numpy as np

    prompts = {prompt: index for index, prompt in enumerate(sorted({_prompt(pair) for pair in pairs}))}
    cells = np.zeros((len(prompts), 4))
    for pair in pairs:
        row, label = pair
        human, judge = row.label != "compliance", label != "compliance"
        cells[prompts[_prompt(pair)], 0 if human and judge else 1 if judge else 2 if human else 3] += 1
    values = _measures(cells.sum(axis=0, keepdims=True))
    resampled = {}
    if len(prompts) > 1:
        draws = np.random.default_rng(SEED).multinomial(
            len(prompts), [1 / len(prompts)] * len(prompts), size=RESAMPLES
        )
        resampled = _measures(draws @ cells)
    return {
        **{name: _number(values[name][0]) for name in MEASURES},
        "n": len(pairs),
        "intervals": {name: _interval(resampled.get(name)) for name in MEASURES},
    }


def _prompt(pair: tuple[LabelledAnswer, HumanLabel]) -> str:
    # Without a prompt, every answer is a cluster of its own.
    return pair[0].prompt or f"answer: {pair[0].response}"


def _measures(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Computes each measure for rows of (both, judge only, human only, neither); NaN if undefined."""
    import numpy as np

    both, judge, human, neither = np.asarray(cells, dtype=float).T
    total = cells.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = ((both + judge) * (both + human) + (neither + judge) * (neither + human)) / total**2
        return {
            "precision": both / (both + judge),
            "recall": both / (both + human),
            "f1": 2 * both / (2 * both + judge + human),
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
