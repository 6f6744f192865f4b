"""From a log and its rewards to groups with advantages, in one Parquet file, whatever the log's size.

The episodes of a log do not change, so neither do their advantages: they are computed here once, over groups
of any sizes, and stored as columns. The advantages need a group's rewards together, wherever in the log its
episodes lie: what they need lies in parts on disk, by group, so that memory does not grow with the log. What
cannot be used is left out and counted by its cause.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.errors import GroupError
from trainer.groups.log_reader import REWARDED_IDS, LogReader
from trainer.groups.parquet import AdvantageSettings, describe_file, replace_file
from trainer.groups.partitions import Partitions, Records, open_partitions, partition_count
from trainer.groups.spill import IDS, NUMBERS, NUMERIC_FIELDS, spill
from trainer.ifpo import ifpo_advantages, inverse_frequency_weights
from trainer.stages import Notify, make_notifier

TELL = make_notifier("prepare")
PART = 64 * 2**20
"""Bytes of a log whose episodes share a part."""


@dataclass(frozen=True)
class PreparedGroups:
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
    tell: Notify = TELL,
) -> PreparedGroups:
    """Write `out` from a log and the rewards of its episodes.

    Args:
        keep_forced: episodes whose mode was forced belong to their group (stratified groups); otherwise they
            are left out, since the policy did not choose.
        tell: takes a line of warning where the sampling was one that training cannot represent.

    Raises:
        agent.LogError: the log cannot be read.
        evaluation.rewards.RewardError: the rewards cannot be read.
        GroupError: nothing in it can be used; the causes are named. Or `alpha` is no finite number.
        OSError: the disk is full, or the folder cannot be written; an earlier `out` is then as it was.
    """
    settings = settings or AdvantageSettings()
    if not math.isfinite(settings.alpha):
        raise GroupError(f"alpha is {settings.alpha}, but it must be a finite number: pass 1 for equal modes")
    left_out: Counter[str] = Counter()
    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    # One standard deviation over all rewards needs all of them in one part, whatever memory that takes.
    whole = settings.scale_rewards == "batch" or not log.is_file()
    count = 1 if whole else partition_count(log.stat().st_size, PART)
    # Hashing runs beside parsing: it holds no lock of the interpreter.
    with (
        tempfile.TemporaryFile(dir=folder) as spilled_rows,
        open_partitions(folder, NUMERIC_FIELDS, count) as light,
        open_partitions(folder, IDS, count) as ids,
        open_partitions(folder, REWARDED_IDS, count) as rated,
        ThreadPoolExecutor(1) as beside,
    ):
        digests = [beside.submit(_sha256, path) for path in (log, rewards)]
        spilled = spill(LogReader(log, rewards, rated), spilled_rows, light, ids, left_out, keep_forced)
        kept = _advantages(light, _seconds(ids, left_out), settings, left_out)
        left_out += Counter()  # without causes that nothing had
        if not kept["episodes"]:
            causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
            raise GroupError(
                f"no episode in {log} can be used ({causes or 'it is empty'}): two scored episodes of one "
                "prompt are the least"
            )
        prepared = PreparedGroups(**kept, left_out=dict(sorted(left_out.items())))
        about = {
            "settings": settings.model_dump(mode="json"),
            "stratified": keep_forced,
            **asdict(prepared),
            "sources": {
                "policy_versions": sorted(spilled.policy_versions),
                "rulebook_digests": sorted(spilled.rulebook_digests),
                "sampled_with": sorted(spilled.reshaped),
                "log_sha256": digests[0].result(),
                "rewards_sha256": digests[1].result(),
            },
        }
        with replace_file(out) as target:
            _write(spilled_rows, target, light, spilled.counts, about)
            target.replace(out)
    if spilled.reshaped:
        tell(
            f"the episodes were sampled with {', '.join(sorted(spilled.reshaped))}, which training cannot "
            "represent: it knows a temperature alone, so ratios to the policy that sampled are only near; "
            "sample without for exact ones"
        )
    return prepared


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seconds(ids: Partitions, left_out: Counter[str]) -> npt.NDArray[np.int64]:
    """The rows whose id an earlier row has."""
    again = []
    for part in range(len(ids)):
        found = ids.read(part)
        scored = found[found["row"] >= 0]
        first = np.unique(scored["id"], return_index=True)[1]
        again.append(np.delete(scored["row"], first))
        # A repeated line finds its reward taken, so it looks unscored.
        twice = int(np.isin(found["id"][found["row"] < 0], scored["id"]).sum())
        left_out["not scored"] -= twice
        left_out["a second episode of that id"] += twice + len(again[-1])
    return np.concatenate(again)


def _advantages(
    light: Partitions, seconds: npt.NDArray[np.int64], settings: AdvantageSettings, left_out: Counter[str]
) -> dict[str, int]:
    """Number what is kept, part by part: how many episodes, groups and corrected episodes that is."""
    options = settings.model_dump()
    counts: Counter[str] = Counter()
    for part in range(len(light)):
        found = light.read(part).copy()
        kept = _kept(found, ~np.isin(found["row"], seconds), left_out)
        chosen = found[kept]
        rewards, modes, groups = chosen["reward"], chosen["consulted"], chosen["group"]
        found["kept"] = kept
        found["weight"][kept] = inverse_frequency_weights(
            modes, groups, alpha=settings.alpha, w_max=settings.w_max
        )
        found["advantage_ifpo"][kept] = ifpo_advantages(rewards, modes, groups, **options)
        found["advantage_grpo"][kept] = ifpo_advantages(rewards, modes, groups, **(options | {"alpha": 0.0}))
        light.replace(part, found)
        counts += Counter(
            episodes=len(chosen), groups=len(np.unique(groups)), corrected=int(chosen["corrected"].sum())
        )
    return {name: counts[name] for name in ("episodes", "groups", "corrected")}


def _kept(found: Records, kept: npt.NDArray[np.bool_], left_out: Counter[str]) -> npt.NDArray[np.bool_]:
    """Which of these episodes stand in a group of one setting, among others."""
    if not len(found):
        return kept
    group = np.unique(found["group"], return_inverse=True)[1]
    lowest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(group.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group[kept], found["setting"][kept])
    np.maximum.at(highest, group[kept], found["setting"][kept])
    mixed = kept & (lowest != highest)[group]
    left_out["its group mixes checkpoints, rulebooks or settings"] += int(mixed.sum())
    kept &= ~mixed
    alone = kept & (np.bincount(group[kept], minlength=len(lowest)) == 1)[group]
    left_out["alone in its group"] += int(alone.sum())
    kept &= ~alone
    return kept


def _write(
    spilled: BinaryIO,
    target: Path,
    light: Partitions,
    counts: list[npt.NDArray[np.int64]],
    about: dict[str, Any],
) -> None:
    """The kept rows of the spill with their numbers, batch by batch: a row group each."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    form = describe_file(about)
    spilled.seek(0)
    repeated = ["group_id", "prompt_id", "kind", "mode", "policy_version", "tools"]
    with (
        pyarrow.ipc.open_stream(spilled) as batches,
        pyarrow.parquet.ParquetWriter(
            target, form, compression="zstd", compression_level=1, use_dictionary=repeated
        ) as writer,
    ):
        for batch, here in zip(batches, counts, strict=True):
            found = np.concatenate([light.next(part, int(count)) for part, count in enumerate(here)])
            found = found[np.argsort(found["row"])]  # every part holds its rows in order: a merge
            chosen = batch.filter(pyarrow.array(found["kept"]))
            columns = {name: chosen.column(name) for name in chosen.schema.names}
            for name in NUMBERS:
                columns[name] = pyarrow.array(found[name][found["kept"]])
            if len(chosen):
                writer.write_table(pyarrow.table([columns[name] for name in form.names], schema=form))
