"""The groups file of a replay: its short columns in memory, its texts streamed whenever they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.errors import TrainingError
from trainer.groups.parquet import open_groups
from trainer.stages.monitoring import Notify
from trainer.tokens import ModeLosses

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments

Columns = dict[str, npt.NDArray[Any]]
Texts = dict[str, Any]
"""Columns of one episode that are not kept in memory, by name."""

_NAMES = ("mode", "kind", "group_id", "policy_version")
_NUMBERS = ("reward", "forced", "consultations", "temperature")
PROMPT_COLUMNS = ("messages", "given_messages", "tools", "template_options", "started_at")
EPISODE_COLUMNS = (*PROMPT_COLUMNS, "turns", "episode_id")
_TEXT_ROWS = 32
"""Episodes that are read at once: an episode of 2,000 tokens may have 200 kB of text."""


@dataclass(frozen=True)
class LoggedGroups:
    """Contents of a groups file with N episodes."""

    path: Path
    columns: Columns
    """(N,) `reward`, `forced`, `consultations`, `mode`, `kind` (None if unknown), and `group_id` as a number
    from 0."""
    settings: dict[str, Any]
    """Advantage settings of `ascl-train prepare`."""
    sources: Any
    """Logs and rewards that the file was made from."""
    sha256: str
    policy_versions: list[str]
    temperature: float
    """Sampling temperature of all episodes."""
    losses: ModeLosses
    """Episodes that `ascl-train prepare` left out, by cause and mode."""

    def texts(self, columns: tuple[str, ...] = EPISODE_COLUMNS) -> Iterator[Texts]:
        """Yields the text columns of every episode in the file's order, reading a few episodes at a time."""
        with open_groups(self.path) as (file, _):
            for batch in file.iter_batches(batch_size=_TEXT_ROWS, columns=list(columns)):
                yield from batch.to_pylist()

    def sample(self, count: int) -> list[Texts]:
        """Returns `count` episodes, spread evenly over the file, with their `mode` and `forced`."""
        total = len(self.columns["reward"])
        wanted = set(range(0, total, max(1, total // count)))
        chosen: list[Texts] = []
        columns, start = [*EPISODE_COLUMNS, "mode", "forced"], 0
        with open_groups(self.path) as (file, _):
            for number in range(file.num_row_groups):
                rows = file.metadata.row_group(number).num_rows
                here = sorted(wanted & set(range(start, start + rows)))
                start += rows
                first = start - rows
                for batch in file.iter_batches(batch_size=_TEXT_ROWS, row_groups=[number], columns=columns):
                    end = first + len(batch)
                    chosen += [batch.slice(at - first, 1).to_pylist()[0] for at in here if first <= at < end]
                    first = end
                    if not here or here[-1] < end:
                        break
        return chosen


def read_logged_groups(arguments: LoggedArguments, notify: Notify) -> LoggedGroups:
    """Reads a groups file.

    Raises:
        GroupError: the file cannot be read.
        TrainingError: several policies sampled it although `behaviour` is `model`, or several temperatures.
    """
    path = Path(arguments.groups)
    columns, description = _read_columns(path)
    versions = sorted(set(columns.pop("policy_version").tolist()))
    if len(versions) > 1 and arguments.behaviour == "model":
        raise TrainingError(
            f"the episodes were sampled by the policies {', '.join(versions)}, but the log-probabilities of "
            "one model cannot stand for several: prepare the log of one policy, or set behaviour to 'other' "
            "to accept the approximation"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LoggedGroups(
        path=path,
        temperature=_single_temperature(columns.pop("temperature"), notify),
        columns=columns,
        settings=description["settings"],
        sources=description["sources"],
        sha256=sha256,
        policy_versions=versions,
        losses=ModeLosses.from_record(description["losses"]),
    )


def _read_columns(path: Path) -> tuple[Columns, dict[str, Any]]:
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*_NAMES, *_NUMBERS)}
    groups: dict[str, int] = {}
    with open_groups(path, dictionary=_NAMES) as (file, description):
        for batch in file.iter_batches(columns=list(parts)):
            for name in _NUMBERS:
                parts[name].append(batch[name].to_numpy(zero_copy_only=False))
            for name in _NAMES:
                column = batch[name]
                parts[name].append(_numbered(column, groups) if name == "group_id" else _values(column))
    columns = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts.items()}
    return columns, description


def _values(column: Any) -> npt.NDArray[Any]:
    """(N,) values of a dictionary column; equal ones share one object."""
    values = column.dictionary.to_pylist()
    codes = column.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    distinct: npt.NDArray[Any] = np.array([*values, None], dtype=object)
    return np.asarray(distinct[codes])


def _numbered(column: Any, known: dict[str, int]) -> npt.NDArray[np.int64]:
    """(N,) values of a dictionary column as numbers from 0; adds new values to `known`."""
    values = column.dictionary.to_pylist()
    numbers: npt.NDArray[np.int64] = np.array([known.setdefault(value, len(known)) for value in values])
    return np.asarray(numbers[column.indices.to_numpy(zero_copy_only=False)])


def _single_temperature(temperatures: npt.NDArray[Any], notify: Notify) -> float:
    """Returns the temperature of all episodes; the trainer divides logits by it, as the sampler did.

    If none was sent (NaN), it assumes 1, the default of most endpoints, and reports this.

    Raises:
        TrainingError: the temperatures differ, or are 0.
    """
    if unknown := int(np.isnan(temperatures).sum()):
        notify(
            f"{unknown} episodes were sampled without a temperature: 1 is assumed, which is wrong for an "
            "endpoint with another default"
        )
    distinct = np.unique(np.nan_to_num(temperatures, nan=1.0)).tolist()
    if len(distinct) > 1:
        raise TrainingError(
            f"the episodes were sampled at the temperatures {', '.join(map(str, distinct))}, but a run has "
            "one: prepare a log of one temperature"
        )
    if distinct[0] == 0:
        raise TrainingError(
            "the episodes were sampled at temperature 0, so they have no probabilities to learn: sample "
            "again at a temperature above 0"
        )
    return float(distinct[0])
