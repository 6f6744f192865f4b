"""From a log and its rewards to groups with advantages, in one Parquet file, whatever the log's size.

The episodes of a log do not change, so neither do their advantages: they are computed here once, over groups
of any sizes, and stored as columns. The log is parsed once. Rows go to a spill file beside the result, and a
few dozen bytes an episode stay in memory: the advantages need a group's rewards together, wherever in the log
its episodes lie. What cannot be used is left out and counted by its cause.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.errors import GroupError
from trainer.groups import AdvantageSettings, described, replacing, schema
from trainer.ifpo import ifpo_advantages, inverse_frequency_weights
from trainer.log_rows import LoggedEpisode, LoggedReward, LogRows

if TYPE_CHECKING:
    import pyarrow

NUMBERS = ("weight", "advantage_ifpo", "advantage_grpo")
"""The columns that depend on an episode's group."""
_ROWS_AT_ONCE = 4096  # rows in memory while writing
_BYTES_AT_ONCE = 32 * 2**20  # and about how much of their text: long episodes come fewer at a time


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made: how many episodes and groups, and what it left out by cause."""

    episodes: int
    groups: int
    corrected: int
    """Episodes whose reward a person's label decides."""
    left_out: dict[str, int] = field(default_factory=dict)


def prepare(
    log: Path,
    rewards: Path,
    out: Path,
    settings: AdvantageSettings | None = None,
    *,
    keep_forced: bool = False,
) -> Prepared:
    """Write `out` from a log and the rewards of its episodes.

    Args:
        keep_forced: episodes whose mode was forced belong to their group (stratified groups); otherwise they
            are left out, since the policy did not choose.

    Raises:
        agent.LogError: the log cannot be read.
        evaluation.rewards.RewardError: the rewards cannot be read.
        GroupError: nothing in it can be used; the causes are named.
        OSError: the disk is full, or the folder cannot be written; an earlier `out` is then as it was.
    """
    settings = settings or AdvantageSettings()
    left_out: Counter[str] = Counter()
    sources: dict[str, set[str]] = {"policy_versions": set(), "rulebook_digests": set()}
    # Hashing runs beside parsing: it holds no lock of the interpreter.
    with replacing(out, "spill") as spill, ThreadPoolExecutor(1) as beside:
        digests = [beside.submit(_sha256, path) for path in (log, rewards)]
        light = _spill(LogRows(log, rewards), spill, left_out, keep_forced, sources)
        kept = _kept(light, left_out)
        left_out += Counter()  # without causes that nothing had
        if not kept.any():
            causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
            raise GroupError(
                f"no episode in {log} can be used ({causes or 'it is empty'}): two scored episodes of one "
                "prompt are the least"
            )
        numbers = _advantages(light, kept, settings)
        prepared = Prepared(
            int(kept.sum()),
            len(np.unique(light.groups[kept])),
            int(light.corrected[kept].sum()),
            dict(sorted(left_out.items())),
        )
        about = {
            "settings": settings.model_dump(mode="json"),
            "stratified": keep_forced,
            "episodes": prepared.episodes,
            "groups": prepared.groups,
            "corrected": prepared.corrected,
            "left_out": prepared.left_out,
            "sources": {
                **{name: sorted(values) for name, values in sources.items()},
                "log_sha256": digests[0].result(),
                "rewards_sha256": digests[1].result(),
            },
        }
        with replacing(out) as target:
            _write(spill, target, kept, numbers, about)
            target.replace(out)
    return prepared


@dataclass(frozen=True)
class _Light:
    """What the advantages need of N episodes: hashes in place of names."""

    ids: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    settings: npt.NDArray[np.int64]
    consulted: npt.NDArray[np.int8]
    rewards: npt.NDArray[np.float64]
    corrected: npt.NDArray[np.int8]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spill(
    rows: LogRows, path: Path, left_out: Counter[str], keep_forced: bool, sources: dict[str, set[str]]
) -> _Light:
    """Write what may be used of the log, in its order, and return what the advantages need of it."""
    import pyarrow.ipc

    ids, groups, settings = array("q"), array("q"), array("q")
    consulted, totals, corrected = array("b"), array("d"), array("b")
    unrated = array("q")
    form = schema(without=NUMBERS)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, form) as writer:
        batch = _Batch(form)
        for episode, reward in rows:
            if cause := _unusable(episode, reward, keep_forced):
                left_out[cause] += 1
                if reward is None and cause == "not scored":
                    unrated.append(hash(episode.id))
                continue
            assert reward is not None
            assert reward.total is not None
            ids.append(hash(episode.id))
            groups.append(hash(episode.group_id))
            settings.append(episode.setting())
            consulted.append(episode.mode == "consult")
            totals.append(reward.total)
            corrected.append(reward.corrected)
            sources["policy_versions"].add(episode.policy_version)
            if episode.rulebook_digest is not None:
                sources["rulebook_digests"].add(episode.rulebook_digest)
            batch.add(episode, reward.total)
            if batch.full:
                writer.write_batch(batch.take())
        writer.write_batch(batch.take())
    left_out["line that is no episode"] += rows.torn_lines
    light = _Light(
        np.frombuffer(ids, dtype=np.int64),
        np.frombuffer(groups, dtype=np.int64),
        np.frombuffer(settings, dtype=np.int64),
        np.frombuffer(consulted, dtype=np.int8),
        np.frombuffer(totals, dtype=np.float64),
        np.frombuffer(corrected, dtype=np.int8),
    )
    # A repeated line finds its reward taken, so it looks unscored.
    again = int(np.isin(np.frombuffer(unrated, dtype=np.int64), light.ids).sum())
    left_out["not scored"] -= again
    left_out["a second episode of that id"] += again
    return light


def _unusable(episode: LoggedEpisode, reward: LoggedReward | None, keep_forced: bool) -> str | None:
    """Why an episode is left out, or None."""
    if episode.stop_reason == "error":
        return "ended in an error"
    if episode.mode_forced and not keep_forced:
        return "its mode was forced"
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
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0

    def add(self, episode: LoggedEpisode, reward: float) -> None:
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

    @property
    def full(self) -> bool:
        return len(self._rows) >= _ROWS_AT_ONCE or self._bytes >= _BYTES_AT_ONCE

    def take(self) -> pyarrow.RecordBatch:
        import pyarrow

        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(self._form)
        arrays = [
            pyarrow.array(column, type=each.type) for column, each in zip(columns, self._form, strict=True)
        ]
        self._rows, self._bytes = [], 0
        return pyarrow.record_batch(arrays, schema=self._form)


def _kept(light: _Light, left_out: Counter[str]) -> npt.NDArray[np.bool_]:
    """Which of the spilled episodes stand in a group of one setting, among others, once each."""
    kept = np.zeros(len(light.ids), dtype=bool)
    kept[np.unique(light.ids, return_index=True)[1]] = True
    left_out["a second episode of that id"] += int((~kept).sum())
    if not len(kept):
        return kept
    group = np.unique(light.groups, return_inverse=True)[1]
    lowest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(group.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group[kept], light.settings[kept])
    np.maximum.at(highest, group[kept], light.settings[kept])
    mixed = kept & (lowest != highest)[group]
    left_out["its group mixes checkpoints, rulebooks or settings"] += int(mixed.sum())
    kept &= ~mixed
    alone = kept & (np.bincount(group[kept], minlength=len(lowest)) == 1)[group]
    left_out["alone in its group"] += int(alone.sum())
    kept &= ~alone
    return kept


def _advantages(
    light: _Light, kept: npt.NDArray[np.bool_], settings: AdvantageSettings
) -> dict[str, npt.NDArray[np.float64]]:
    """Weight and both methods' advantages of the kept episodes, in order."""
    rewards, modes, groups = light.rewards[kept], light.consulted[kept], light.groups[kept]
    options = settings.model_dump()
    return {
        "weight": inverse_frequency_weights(modes, groups, alpha=settings.alpha, w_max=settings.w_max),
        "advantage_ifpo": ifpo_advantages(rewards, modes, groups, **options),
        "advantage_grpo": ifpo_advantages(rewards, modes, groups, **(options | {"alpha": 0.0})),
    }


def _write(
    spill: Path,
    target: Path,
    kept: npt.NDArray[np.bool_],
    numbers: dict[str, npt.NDArray[np.float64]],
    about: dict[str, Any],
) -> None:
    """The kept rows of the spill with their numbers, batch by batch: a row group each."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    form = described(about)
    repeated = ["group_id", "prompt_id", "kind", "mode", "policy_version", "tools"]
    read = written = 0
    with (
        pyarrow.OSFile(str(spill)) as source,
        pyarrow.ipc.open_stream(source) as batches,
        pyarrow.parquet.ParquetWriter(
            target, form, compression="zstd", compression_level=1, use_dictionary=repeated
        ) as writer,
    ):
        for batch in batches:
            here = kept[read : read + len(batch)]
            read += len(batch)
            chosen = batch.filter(pyarrow.array(here))
            columns = {name: chosen.column(name) for name in chosen.schema.names}
            for name, values in numbers.items():
                columns[name] = pyarrow.array(values[written : written + len(chosen)])
            written += len(chosen)
            if len(chosen):
                writer.write_table(pyarrow.table([columns[name] for name in form.names], schema=form))
