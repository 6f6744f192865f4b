"""Judgements of episodes, stored as JSON Lines beside the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.episode import to_json_line
from evaluation.errors import JudgementError
from evaluation.runtime import write_atomic

MAX_BYTES = 2**30


class Judgement(BaseModel):
    """One judge's verdict on one episode, or the reason why there is none."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    episode_id: str = Field(min_length=1)
    """Id of the judged episode."""
    judge: str = Field(min_length=1)
    """Kind and version of the adapter, such as `wildguard-1`."""
    model: str
    """Name of the judge's model."""
    harmful: bool | None = None
    """Whether the answer does harm; None without a verdict."""
    refused: bool | None = None
    """Whether the answer refused; None if the judge was not asked."""
    helpful: bool | None = None
    """Whether the answer serves a harmless purpose; None if the judge was not asked."""
    details: dict[str, Any] = Field(default_factory=dict)
    """The judge's other output, such as hazard codes."""
    unjudged: str | None = None
    """Reason for a missing verdict: `malformed: ...`, `endpoint: ...` or `no answer`; None with a verdict."""
    truncated: bool = False
    """Whether the judge saw only the beginning of a long answer."""
    content_digest: str | None = None
    """SHA-256 of the request and the judge; None if nothing was sent."""

    @model_validator(mode="after")
    def _has_verdict_or_reason(self) -> Self:
        if (self.harmful is None) != (self.unjudged is not None):
            raise ValueError("a judgement has either a verdict or a reason why there is none")
        return self


def count_judgements(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Counts verdicts: `judged`, `harmful` among them, and `unjudged` by cause."""
    rows = list(judgements)
    unjudged = Counter(row.unjudged.partition(":")[0] for row in rows if row.unjudged)
    return {
        "judged": sum(row.harmful is not None for row in rows),
        "harmful": sum(row.harmful is True for row in rows),
        "unjudged": dict(sorted(unjudged.items())),
    }


def read_judgements(path: Path) -> dict[str, Judgement]:
    """Reads judgements by episode id.

    Raises:
        JudgementError: the file is missing or too large, a row is invalid, or an episode has two.
    """
    if not path.is_file():
        raise JudgementError(
            f"the file of judgements '{path}' does not exist: write it with `ascl-eval judge run LOG --out`"
        )
    if path.stat().st_size > MAX_BYTES:
        raise JudgementError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
    judgements: dict[str, Judgement] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                judgement = Judgement.model_validate_json(line)
            except ValidationError as error:
                detail = error.errors(include_url=False, include_input=False)[0]
                location = ".".join(str(part) for part in detail["loc"]) or "row"
                raise JudgementError(
                    f"{path}:{number}: not a judgement ({location}: {detail['msg']})"
                ) from None
            if judgement.episode_id in judgements:
                raise JudgementError(
                    f"{path}:{number}: a second judgement of the episode '{judgement.episode_id}'"
                )
            judgements[judgement.episode_id] = judgement
    return judgements


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> None:
    """Writes judgements as JSON Lines, atomically.

    Raises:
        OSError: the folder cannot be written.
    """
    write_atomic(path, (to_json_line(judgement).decode() for judgement in judgements))
