"""The groups file (Parquet): columns, metadata, reading and writing.

`trainer.groups.prepare` writes it. Readers load only the columns they need, so statistics of a million
episodes never read their text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import GroupError
from trainer.ifpo import Baseline, Scale
from trainer.tokens.chat_template import on_day_of

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

SCHEMA_VERSION = 4
_METADATA_KEY = b"ascl"
_BUFFER_BYTES = 2**16


class AdvantageSettings(BaseModel):
    """Parameters of the advantage computation; see `trainer.ifpo.ifpo_advantages`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(default=1.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Baseline = "balanced"
    scale_rewards: Scale = "group"
    eps: float = Field(default=1e-4, ge=0)


def groups_schema(without: Iterable[str] = ()) -> pyarrow.Schema:
    """Returns the columns of a groups file, except those in `without`.

    Messages, tools and turns are JSON text because their structure is not fixed.
    """
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    columns = {
        "episode_id": text,
        "group_id": text,
        "prompt_id": text,
        "kind": text,  # null if unknown
        "mode": text,
        "forced": pyarrow.bool_(),  # the policy did not choose the mode
        "reward": number,
        "weight": number,
        "advantage_ifpo": number,
        "advantage_grpo": number,
        "policy_version": text,
        "temperature": number,  # as sent; null if the endpoint's default was used
        "template_options": text,  # options of the chat template as sent, JSON; null if none were sent
        "started_at": text,  # UTC time in ISO 8601; null if unknown
        "consultations": pyarrow.int32(),
        "failed_consultations": pyarrow.int32(),  # calls without a verdict
        "messages": text,
        "given_messages": pyarrow.int32(),  # before the replies; null without earlier replies among them
        "tools": text,
        "turns": text,  # finish reasons, token ids and log-probabilities; null in text-only logs
    }
    return pyarrow.schema({name: kind for name, kind in columns.items() if name not in without})


def schema_with_metadata(metadata: dict[str, Any]) -> pyarrow.Schema:
    """Returns the full schema with this metadata attached as JSON."""
    versioned = {"schema_version": SCHEMA_VERSION, **metadata}
    return groups_schema().with_metadata({_METADATA_KEY: json.dumps(versioned).encode()})


def read_groups(
    path: Path, columns: Iterable[str] | None = None
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Reads a groups file; returns its columns as lists, and its metadata.

    Raises:
        GroupError: the file does not exist, or `ascl-train prepare` did not write it.
    """
    table, metadata = read_table(path, columns)
    return table.to_pydict(), metadata


def read_table(path: Path, columns: Iterable[str] | None = None) -> tuple[pyarrow.Table, dict[str, Any]]:
    """Reads a groups file; returns an Arrow table and the file's metadata.

    Raises:
        GroupError: the file does not exist, or `ascl-train prepare` did not write it.
    """
    with open_groups(path) as (file, metadata):
        return file.read(list(columns) if columns is not None else None), metadata


@contextmanager
def open_groups(
    path: Path, *, dictionary: Iterable[str] = ()
) -> Iterator[tuple[pyarrow.parquet.ParquetFile, dict[str, Any]]]:
    """Opens a groups file for reading; yields it with its metadata.

    Args:
        dictionary: columns with few distinct values, to read as dictionary codes.

    Raises:
        GroupError: the file does not exist, or `ascl-train prepare` did not write it.
    """
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise GroupError(
            f"the groups file '{path}' does not exist: write it with "
            f"`ascl-train prepare LOG REWARDS --out {path}`"
        )
    foreign = GroupError(f"'{path}' was not written by `ascl-train prepare`: prepare the log again")
    try:
        # Buffered: a column of a row group is read in pages, not at once.
        file = pyarrow.parquet.ParquetFile(path, read_dictionary=list(dictionary), buffer_size=_BUFFER_BYTES)
        metadata = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
        version = metadata["schema_version"]
    except (pyarrow.ArrowException, KeyError, ValueError):
        raise foreign from None
    with file:
        if version != SCHEMA_VERSION:
            raise GroupError(
                f"'{path}' has format version {version}, but this release reads version {SCHEMA_VERSION}: "
                "prepare the log again"
            )
        try:
            yield file, metadata
        except pyarrow.ArrowException:
            raise foreign from None


def template_options_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the template options that an episode was sampled with, and its day.

    Args:
        row: a row with `template_options`, and `started_at` for templates that print the date.
    """
    sent = row["template_options"]
    return on_day_of(json.loads(sent) if sent else None, row.get("started_at"))
