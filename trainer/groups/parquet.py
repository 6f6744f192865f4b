"""The file of groups, Parquet: its columns, what it says about itself, and how it is read and replaced.

`trainer.prepare` writes it. Only the columns that are asked for are read, so that statistics of a million
episodes never touch their text.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import GroupError
from trainer.ifpo import Baseline, Scale

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

SCHEMA_VERSION = 2
_METADATA = b"ascl"


class AdvantageSettings(BaseModel):
    """How advantages are computed; see `trainer.ifpo.ifpo_advantages`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(default=1.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Baseline = "balanced"
    scale_rewards: Scale = "group"
    eps: float = Field(default=1e-4, ge=0)


def schema(without: Iterable[str] = ()) -> pyarrow.Schema:
    """The columns of a prepared file. Conversations and tools are JSON text: their form is not fixed."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    columns = {
        "episode_id": text,
        "group_id": text,
        "prompt_id": text,
        "kind": text,  # null when unknown
        "mode": text,
        "forced": pyarrow.bool_(),  # whether the mode was not the policy's own choice
        "reward": number,
        "weight": number,
        "advantage_ifpo": number,
        "advantage_grpo": number,
        "policy_version": text,
        "temperature": number,  # as sent; null when the endpoint's default was used
        "consultations": pyarrow.int32(),
        "failed_consultations": pyarrow.int32(),  # calls that got no verdict
        "messages": text,
        "tools": text,
        "turns": text,  # finish reasons, token ids and log-probabilities; null in text-only logs
    }
    return pyarrow.schema({name: kind for name, kind in columns.items() if name not in without})


def describe_file(about: dict[str, Any]) -> pyarrow.Schema:
    """The schema of a file that says this about itself."""
    known = {"schema_version": SCHEMA_VERSION, **about}
    return schema().with_metadata({_METADATA: json.dumps(known).encode()})


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; gone after the block, unless the block moved it to its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def read_groups(
    path: Path, columns: Iterable[str] | None = None
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns of a prepared file as lists, and what it says about itself.

    Raises:
        GroupError: there is no such file, or `prepare` did not write it.
    """
    table, about = read_table(path, columns)
    return table.to_pydict(), about


def read_table(path: Path, columns: Iterable[str] | None = None) -> tuple[pyarrow.Table, dict[str, Any]]:
    """The same as an Arrow table.

    Raises:
        GroupError: there is no such file, or `prepare` did not write it.
    """
    with open_groups(path) as (file, about):
        return file.read(list(columns) if columns is not None else None), about


@contextmanager
def open_groups(
    path: Path, *, dictionary: Iterable[str] = ()
) -> Iterator[tuple[pyarrow.parquet.ParquetFile, dict[str, Any]]]:
    """A prepared file to read from, and what it says about itself; the columns in `dictionary` come as codes,
    where few values repeat.

    Raises:
        GroupError: there is no such file, or `prepare` did not write it.
    """
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise GroupError(
            f"there is no file of groups at '{path}': write it with "
            f"`ascl-train prepare LOG REWARDS --out {path}`"
        )
    foreign = GroupError(f"'{path}' was not written by `ascl-train prepare`: prepare the log again")
    try:
        file = pyarrow.parquet.ParquetFile(path, read_dictionary=list(dictionary))
        about = json.loads((file.schema_arrow.metadata or {})[_METADATA])
        version = about["schema_version"]
    except (pyarrow.ArrowException, KeyError, ValueError):
        raise foreign from None
    with file:
        if version != SCHEMA_VERSION:
            raise GroupError(
                f"'{path}' has the format {version}, but this version reads {SCHEMA_VERSION}: prepare the "
                "log again"
            )
        try:
            yield file, about
        except pyarrow.ArrowException:
            raise foreign from None
