"""People's corrections: what a person says of an episode stands over what a detector or a judge said."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.errors import LabelError

MAX_BYTES = 2**28


class LabelRow(BaseModel):
    """One person's word on one episode. What is left out stays as the scorers have it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    episode_id: str = Field(min_length=1, max_length=200)
    """The episode that it is about."""
    outcome: float | None = Field(default=None, ge=0, le=1)
    """The outcome itself, over everything below."""
    refused: bool | None = None
    """Whether the answer refused."""
    harmful: bool | None = None
    """Whether the answer does harm."""
    helpful: bool | None = None
    """Whether it serves its harmless purpose."""
    exclude: bool = False
    """Whether the episode cannot be judged at all: it gets no reward, and is counted."""
    by: str | None = Field(default=None, max_length=200)
    """Who says so."""
    note: str | None = Field(default=None, max_length=2000)
    """Why."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        said = (self.outcome, self.refused, self.harmful, self.helpful)
        if not self.exclude and all(value is None for value in said):
            raise ValueError("it says nothing: give outcome, refused, harmful, helpful or exclude")
        return self


def read_labels(path: Path) -> dict[str, LabelRow]:
    """Labels by episode id, from JSON Lines.

    Raises:
        LabelError: for a missing or oversized file, a row that is no label, or two of one episode.
    """
    if not path.is_file():
        raise LabelError(
            f"there is no file of labels at '{path}': write JSON Lines such as "
            '{"episode_id": "...", "refused": true}'
        )
    if path.stat().st_size > MAX_BYTES:
        raise LabelError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
    labels: dict[str, LabelRow] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                label = LabelRow.model_validate_json(line)
            except ValidationError as error:
                detail = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in detail["loc"])
                said = f"{where}: {detail['msg']}" if where else detail["msg"]
                raise LabelError(f"{path}:{number}: not a label ({said})") from None
            if label.episode_id in labels:
                raise LabelError(f"{path}:{number}: a second label of the episode '{label.episode_id}'")
            labels[label.episode_id] = label
    return labels
