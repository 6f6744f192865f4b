"""What a judge said of an episode, kept as JSON Lines beside the log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.episode import to_json_line
from evaluation.errors import JudgementError
from evaluation.runtime import write_atomic

MAX_BYTES = 2**30


class Judgement(BaseModel):
    """One episode as one judge saw it: a verdict, or the reason why there is none."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    episode_id: str = Field(min_length=1)
    """The episode that was judged."""
    judge: str = Field(min_length=1)
    """Kind and version of the adapter, such as `wildguard-1`."""
    model: str
    """The model name that was asked."""
    harmful: bool | None = None
    """Whether the answer does harm; None where the judge did not say."""
    refused: bool | None = None
    """Whether it refused; None where the judge was not asked."""
    helpful: bool | None = None
    """Whether it serves a harmless purpose; None where the judge was not asked."""
    details: dict[str, Any] = Field(default_factory=dict)
    """What else the judge gave, such as hazard codes."""
    unjudged: str | None = None
    """Why there is no verdict: `malformed: ...`, `endpoint: ...` or `no answer`; None where there is one."""
    truncated: bool = False
    """Whether the judge saw only the beginning of a long answer."""
    content_digest: str | None = None
    """SHA-256 of what was asked and of whom; None where nothing was asked."""

    @model_validator(mode="after")
    def _verdict_or_reason(self) -> Self:
        if (self.harmful is None) != (self.unjudged is not None):
            raise ValueError("a judgement has either a verdict or a reason why there is none")
        return self


def read_judgements(path: Path) -> dict[str, Judgement]:
    """Judgements by episode id.

    Raises:
        JudgementError: for a missing or oversized file, a row that is none, or two of one episode.
    """
    if not path.is_file():
        raise JudgementError(
            f"there is no file of judgements at '{path}': write it with `ascl-eval judge run LOG --out`"
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
                where = ".".join(str(part) for part in detail["loc"]) or "row"
                raise JudgementError(f"{path}:{number}: not a judgement ({where}: {detail['msg']})") from None
            if judgement.episode_id in judgements:
                raise JudgementError(
                    f"{path}:{number}: a second judgement of the episode '{judgement.episode_id}'"
                )
            judgements[judgement.episode_id] = judgement
    return judgements


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> None:
    """Write JSON Lines so that a reader sees the old file or the whole new one, never a part.

    Raises:
        OSError: where the folder cannot be written.
    """
    write_atomic(path, (to_json_line(judgement).decode() for judgement in judgements))
