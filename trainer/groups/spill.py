"""A log's usable episodes on disk: their rows as they will be written, and a few numbers of each by group.

The log is parsed once. Rows go to a spill file in the log's order; what advantages need goes to parts, so
that memory does not grow with the log.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.groups.log_reader import LoggedEpisode, LoggedReward, LogReader
from trainer.groups.parquet import schema
from trainer.groups.partitions import Partitions

if TYPE_CHECKING:
    import pyarrow

NUMBERS = ("weight", "advantage_ifpo", "advantage_grpo")
"""The columns that depend on an episode's group."""
NUMERIC_FIELDS = [
    ("row", "i8"),
    ("group", "i8"),
    ("setting", "i8"),
    ("reward", "f8"),
    ("consulted", "?"),
    ("corrected", "?"),
    ("kept", "?"),
    *((name, "f8") for name in NUMBERS),
]
"""Of a spilled episode, in the part of its group: hashes in place of names; the last four come later."""
IDS = [("id", "i8"), ("row", "i8")]
"""Of an episode, in the part of its id; the row is -1 where the episode is not scored and so not spilled."""
_ROWS_AT_ONCE = 4096  # rows in memory while writing
_BYTES_AT_ONCE = 32 * 2**20  # and about how much of their text: long episodes come fewer at a time


@dataclass(frozen=True)
class SpilledLog:
    """What was spilled of a log, beside its rows and their numbers."""

    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """(P,) of every batch of rows: how many of them lie in each part."""
    policy_versions: set[str] = field(default_factory=set)
    rulebook_digests: set[str] = field(default_factory=set)
    reshaped: set[str] = field(default_factory=set)
    """Settings under which the policy's own probabilities were not those that tokens were drawn with."""


NEUTRAL = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""Settings of sampling that a trainer cannot repeat, and the values with which they change nothing."""


def spill(
    rows: LogReader,
    file: BinaryIO,
    light: Partitions,
    ids: Partitions,
    left_out: Counter[str],
    keep_forced: bool,
) -> SpilledLog:
    """Write what may be used of the log to `file`, in its order, and its numbers to `light` and `ids`."""
    import pyarrow.ipc

    spilled = SpilledLog()
    unrated = array("q")
    form = schema(without=NUMBERS)
    with pyarrow.ipc.new_stream(file, form) as writer:
        batch = _Batch(form)

        def write() -> None:
            rows_of_batch, counts = batch.drain(light, ids)
            writer.write_batch(rows_of_batch)
            spilled.counts.append(counts)
            without = np.frombuffer(unrated, dtype=np.int64)
            ids.add(without, id=without, row=-1)

        for episode, reward in rows:
            if cause := _unusable(episode, reward, keep_forced):
                left_out[cause] += 1
                if reward is None and cause == "not scored":
                    unrated.append(hash(episode.id))
                continue
            assert reward is not None
            assert reward.total is not None
            spilled.policy_versions.add(episode.policy_version)
            if episode.rulebook_digest is not None:
                spilled.rulebook_digests.add(episode.rulebook_digest)
            for name, value in episode.sampling_sent.items():
                if name in NEUTRAL and value is not None and value not in NEUTRAL[name]:
                    spilled.reshaped.add(f"{name} {value}")
            batch.add(episode, reward.total, reward.corrected)
            if batch.full:
                write()
                unrated = array("q")
        write()
    left_out["line that is no episode"] += rows.torn_lines
    return spilled


def _unusable(episode: LoggedEpisode, reward: LoggedReward | None, keep_forced: bool) -> str | None:
    """Why an episode is left out, or None."""
    if episode.stop_reason == "error":
        return "ended in an error"
    if episode.mode_forced and not keep_forced:
        return "its mode was forced"
    if episode.stop_reason == "limit" and not episode.turns:
        return "ended before its first reply"
    if reward is None:
        return "not scored"
    if reward.total is None:
        return f"no reward ({reward.excluded or 'null'})"
    if not math.isfinite(reward.total):
        return "a reward that is no finite number"
    return None


class _Batch:
    """Rows gathered until they are enough to write."""

    def __init__(self, form: pyarrow.Schema) -> None:
        self._form = form
        self._first = 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._settings, self._corrected = array("q"), array("b")

    def add(self, episode: LoggedEpisode, reward: float, corrected: bool) -> None:
        temperature = episode.sampling_sent.get("temperature")
        messages, turns = str(episode.messages, "utf-8"), msgspec.json.encode(episode.turns)
        asked = episode.consultations
        self._rows.append(
            (
                episode.id,
                episode.group_id,
                episode.prompt_id,
                episode.kind,
                episode.mode,
                episode.mode_forced,
                reward,
                episode.policy_version,
                temperature if isinstance(temperature, int | float) else None,
                len(asked),
                sum([each.error is not None for each in asked]) if asked else 0,
                messages,
                str(episode.tools, "utf-8"),
                turns,
            )
        )
        self._bytes += len(messages) + len(turns)
        self._settings.append(episode.setting())
        self._corrected.append(corrected)

    @property
    def full(self) -> bool:
        return len(self._rows) >= _ROWS_AT_ONCE or self._bytes >= _BYTES_AT_ONCE

    def drain(self, light: Partitions, ids: Partitions) -> tuple[pyarrow.RecordBatch, npt.NDArray[np.int64]]:
        """The gathered rows, which go, and (P,) how many of them have their numbers in each of `light`."""
        import pyarrow

        names = self._form.names
        columns = dict(
            zip(names, zip(*self._rows, strict=True) if self._rows else ((),) * len(names), strict=True)
        )
        row = np.arange(self._first, self._first + len(self._rows))
        id, group = (
            np.array([hash(name) for name in columns[column]], dtype=np.int64)
            for column in ("episode_id", "group_id")
        )
        ids.add(id, id=id, row=row)
        counts = light.add(
            group,
            row=row,
            group=group,
            setting=self._settings,
            reward=columns["reward"],
            consulted=[mode == "consult" for mode in columns["mode"]],
            corrected=self._corrected,
        )
        arrays = [pyarrow.array(columns[each.name], type=each.type) for each in self._form]
        self._first += len(self._rows)
        self._clear()
        return pyarrow.record_batch(arrays, schema=self._form), counts
