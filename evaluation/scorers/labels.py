"""Labels of episodes by people, which override detectors and judges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.errors import LabelError

MAX_BYTES = 2**28


class LabelRow(BaseModel):
    """One person's labels of one episode. A field that is None leaves the scorers' result unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    episode_id: str = Field(min_length=1, max_length=200)
    """Id of the episode."""
    outcome: float | None = Field(default=None, ge=0, le=1)
    """The outcome itself; overrides the fields below."""
    refused: bool | None = None
    """Whether the answer refused."""
    harmful: bool | None = None
    """Whether the answer does harm."""
    helpful: bool | None = None
    """Whether the answer serves a harmless purpose."""
    exclude: bool = False
    """Whether the episode cannot be judged at all: it gets no reward, and is counted as excluded."""
    by: str | None = Field(default=None, max_length=200)
    """Name of the person."""
    note: str | None = Field(default=None, max_length=2000)
    """Reason."""

    @model_validator(mode="after")
    def _has_a_value(self) -> Self:
        values = (self.outcome, self.refused, self.harmful, self.helpful)
        if not self.exclude and all(value is None for value in values):
            raise ValueError("it is empty: give outcome, refused, harmful, helpful or exclude")
        return self


def read_labels(path: Path) -> dict[str, LabelRow]:
    """Reads labels by episode id from JSON Lines.

    Raises:
        LabelError: the file is missing or too large, a row is invalid, or an episode has two labels.
    """
    if not path.is_file():
        raise LabelError(
            f"the file of labels '{path}' does not exist: write JSON Lines such as "
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
                location = ".".join(str(part) for part in detail["loc"])
                reason = f"{location}: {detail['msg']}" if location else detail["msg"]
                raise LabelError(f"{path}:{number}: not a label ({reason})") from None
            if label.episode_id in labels:
                raise LabelError(f"{path}:{number}: a second label of the episode '{label.episode_id}'")
            labels[label.episode_id] = label
    return labels


def append_label(path: Path, label: LabelRow) -> None:
    """Appends a label to a file, and writes it to the disk before returning.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = label.model_dump_json(exclude_none=True, exclude_defaults=True) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
