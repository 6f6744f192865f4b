"""Spills the usable episodes of a log to disk: rows in log order, and numbers partitioned by group.

The log is parsed once. Rows are written to a temporary Arrow stream; the numbers that advantages need are
written to partitions. Memory does not grow with the log.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.groups.exclusions import INVALID_LINE, NOT_SCORED, EpisodeFilter
from trainer.groups.history import split_history
from trainer.groups.log_reader import LoggedEpisode, LogReader
from trainer.groups.parquet import groups_schema
from trainer.groups.partitions import Partitions
from trainer.tokens.chat_template import sampled_options
from trainer.tokens.modes import UNDECIDED, ModeLosses

if TYPE_CHECKING:
    import pyarrow

COMPUTED_COLUMNS = ("weight", "advantage_ifpo", "advantage_grpo")
"""Columns that depend on the other episodes of the group."""
NUMERIC_FIELDS = [
    ("row", "i8"),
    ("group", "i8"),
    ("setting", "i8"),
    ("content", "i8"),
    ("reward", "f8"),
    ("consulted", "?"),
    ("corrected", "?"),
    ("included", "?"),
    *((name, "f8") for name in COMPUTED_COLUMNS),
]
"""Record fields of a spilled episode, partitioned by group. `group`, `setting` and `content` are hashes; the
last four fields are filled in later."""
ID_FIELDS = [("id", "i8"), ("row", "i8"), ("consulted", "?")]
"""Record fields of an episode, partitioned by id. `row` is -1 for an episode that is not scored: it is not
spilled."""
_BATCH_ROWS = 4096
_BATCH_BYTES = 32 * 2**20  # approximate text size at which a batch is written early


@dataclass
class SpilledLog:
    """Summary of a spilled log."""

    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """(P,) for each batch of rows: the number of its records in each partition."""
    policy_versions: set[str] = field(default_factory=set)
    rulebook_digests: set[str] = field(default_factory=set)
    sampling_filters: set[str] = field(default_factory=set)
    """Sampling settings under which tokens were not drawn from the policy's own distribution."""
    losses: ModeLosses = field(default_factory=ModeLosses)
    """Episodes that cannot be used, by cause and mode."""


NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
"""Sampling settings that a trainer cannot reproduce, and the values at which they have no effect."""


def spill_log(
    log: LogReader,
    rows: BinaryIO,
    numbers: Partitions,
    ids: Partitions,
    keep_forced: bool,
) -> SpilledLog:
    """Reads a log and writes its usable episodes to `rows` (an Arrow stream), `numbers` and `ids`.

    Args:
        keep_forced: treat episodes with a forced mode as usable.
    """
    import pyarrow
    import pyarrow.ipc

    spilled = SpilledLog()
    selection = EpisodeFilter(keep_forced)
    unscored, unscored_modes = array("q"), array("b")
    schema = groups_schema(without=COMPUTED_COLUMNS)
    with pyarrow.ipc.new_stream(rows, schema) as writer:
        batch = _Batch(schema)

        def write_batch() -> None:
            record_batch, counts = batch.drain(numbers, ids)
            writer.write_batch(record_batch)
            spilled.counts.append(counts)
            hashes = np.frombuffer(unscored, dtype=np.int64)
            ids.add(hashes, id=hashes, row=-1, consulted=np.frombuffer(unscored_modes, dtype=np.bool_))

        for episode, reward in log:
            if cause := selection.cause(episode, reward):
                if cause == NOT_SCORED:
                    unscored.append(hash(episode.id))
                    unscored_modes.append(episode.mode == "consult")
                continue
            assert reward is not None
            assert reward.total is not None
            spilled.policy_versions.add(episode.policy_version)
            if episode.rulebook_digest is not None:
                spilled.rulebook_digests.add(episode.rulebook_digest)
            for name, value in episode.sampling_sent.items():
                if name in NEUTRAL_VALUES and value is not None and value not in NEUTRAL_VALUES[name]:
                    spilled.sampling_filters.add(f"{name} {value}")
            batch.add(episode, reward.total, reward.corrected)
            if batch.full:
                write_batch()
                unscored, unscored_modes = array("q"), array("b")
        write_batch()
    spilled.losses = selection.finish()
    if log.invalid_lines:
        spilled.losses.exempt(INVALID_LINE, UNDECIDED, log.invalid_lines)
    return spilled


def _template_options(sampling: dict[str, Any]) -> str | None:
    """Returns the options that were sent for the chat template as JSON; None if there were none."""
    options = sampled_options(sampling)
    return json.dumps(options, sort_keys=True) if options else None


class _Batch:
    """Collects rows until there are enough to write."""

    def __init__(self, schema: pyarrow.Schema) -> None:
        self._schema = schema
        self._first_row = 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._settings, self._contents, self._corrected = array("q"), array("q"), array("b")

    def add(self, episode: LoggedEpisode, reward: float, corrected: bool) -> None:
        temperature = episode.sampling_sent.get("temperature")
        messages, turns = str(episode.messages, "utf-8"), msgspec.json.encode(episode.turns)
        consultations = episode.consultations
        given, group_id = split_history(episode, messages)
        self._rows.append(
            (
                episode.id,
                group_id,
                episode.prompt_id,
                episode.kind,
                episode.mode,
                episode.mode_forced,
                reward,
                episode.policy_version,
                temperature if isinstance(temperature, int | float) else None,
                _template_options(episode.sampling_sent),
                episode.started_at,
                len(consultations),
                sum([each.error is not None for each in consultations]) if consultations else 0,
                messages,
                given,
                str(episode.tools, "utf-8"),
                turns,
            )
        )
        self._bytes += len(messages) + len(turns)
        self._settings.append(episode.settings_hash())
        self._contents.append(episode.content_hash(messages))
        self._corrected.append(corrected)

    @property
    def full(self) -> bool:
        return len(self._rows) >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES

    def drain(
        self, numbers: Partitions, ids: Partitions
    ) -> tuple[pyarrow.RecordBatch, npt.NDArray[np.int64]]:
        """Returns and removes the collected rows, with (P,) the number of their records in each partition."""
        import pyarrow

        names = self._schema.names
        columns = dict(
            zip(names, zip(*self._rows, strict=True) if self._rows else ((),) * len(names), strict=True)
        )
        row = np.arange(self._first_row, self._first_row + len(self._rows))
        id, group = (
            np.array([hash(name) for name in columns[column]], dtype=np.int64)
            for column in ("episode_id", "group_id")
        )
        consulted = np.array([mode == "consult" for mode in columns["mode"]], dtype=np.bool_)
        ids.add(id, id=id, row=row, consulted=consulted)
        counts = numbers.add(
            group,
            row=row,
            group=group,
            setting=self._settings,
            content=self._contents,
            reward=columns["reward"],
            consulted=consulted,
            corrected=self._corrected,
        )
        arrays = [pyarrow.array(columns[each.name], type=each.type) for each in self._schema]
        self._first_row += len(self._rows)
        self._clear()
        return pyarrow.record_batch(arrays, schema=self._schema), counts
