"""Computes groups with advantages from an episode log and its rewards, and writes them to one Parquet file.

The episodes of a log do not change, so neither do their advantages: they are computed once, over groups of
any size, and stored as columns. Advantages need all rewards of a group, but its episodes may be anywhere in
the log. The numbers they need are therefore partitioned on disk by group, so that memory does not grow with
the log. Episodes that cannot be used are left out and counted by cause.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from evaluation.runtime import write_atomic
from trainer.errors import GroupError
from trainer.groups.exclusions import ALONE, MIXED_GROUP, NOT_SCORED, SECOND_EPISODE, exclusion_remedies
from trainer.groups.log_reader import REWARDED_IDS, LogReader
from trainer.groups.parquet import AdvantageSettings, schema_with_metadata
from trainer.groups.partitions import Partitions, Records, open_partitions, partition_count
from trainer.groups.spill import COMPUTED_COLUMNS, ID_FIELDS, NUMERIC_FIELDS, SpilledLog, spill_log
from trainer.ifpo import ifpo_advantages, inverse_frequency_weights
from trainer.tokens.modes import Mode, ModeLosses

PARTITION_BYTES = 64 * 2**20
"""Bytes of the log whose episodes share a partition."""


@dataclass(frozen=True)
class PreparedGroups:
    """Result of `prepare_groups`: the number of episodes and groups, and of episodes left out by cause."""

    episodes: int
    groups: int
    corrected: int
    """Episodes whose reward was set by a human label."""
    copies: int = 0
    """Episodes that also occur under another id."""
    left_out: dict[str, int] = field(default_factory=dict)
    left_out_by_mode: dict[str, dict[str, int]] = field(default_factory=dict)
    """Cause -> mode -> count; `undecided` for lines without a decision."""


def prepare_groups(
    log: Path,
    rewards: Path,
    out: Path,
    settings: AdvantageSettings | None = None,
    *,
    keep_forced: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> PreparedGroups:
    """Writes the groups file `out` from a log and the rewards of its episodes.

    Args:
        keep_forced: keep episodes whose mode was forced in their group (stratified groups). Otherwise they
            are left out, because the policy did not choose the mode.
        notify: receives a warning if training cannot reproduce the sampling settings, if one mode loses many
            more of its episodes than the other, or if an episode occurs under several ids.

    Raises:
        agent.LogError: the log cannot be read.
        evaluation.scorers.RewardError: the rewards cannot be read.
        GroupError: no episode can be used (the message names the causes), or `alpha` is not finite.
        OSError: the disk is full or the folder is not writable. An existing `out` is unchanged.
    """
    settings = settings or AdvantageSettings()
    if not math.isfinite(settings.alpha):
        raise GroupError(f"alpha is {settings.alpha}, but it must be a finite number: pass 1 for equal modes")
    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    # One standard deviation over all rewards needs all of them in one partition, regardless of memory.
    whole = settings.scale_rewards == "batch" or not log.is_file()
    count = 1 if whole else partition_count(log.stat().st_size, PARTITION_BYTES)
    # Hashing runs in parallel with parsing because it releases the GIL.
    with (
        tempfile.TemporaryFile(dir=folder) as rows,
        open_partitions(folder, NUMERIC_FIELDS, count) as numbers,
        open_partitions(folder, ID_FIELDS, count) as ids,
        open_partitions(folder, REWARDED_IDS, count) as rewarded_ids,
        ThreadPoolExecutor(1) as executor,
    ):
        digests = [executor.submit(_sha256, path) for path in (log, rewards)]
        spilled = spill_log(LogReader(log, rewards, rewarded_ids), rows, numbers, ids, keep_forced)
        losses = spilled.losses
        counts = _compute_advantages(numbers, _duplicate_rows(ids, losses), settings, losses)
        if not counts["episodes"]:
            raise _no_usable_episode(log, losses)
        prepared = PreparedGroups(**counts, left_out=losses.counts(), left_out_by_mode=losses.record())
        metadata = {
            "settings": settings.model_dump(mode="json"),
            "stratified": keep_forced,
            **asdict(prepared),
            "losses": losses.as_record(),
            "sources": _sources(spilled, *digests),
        }
        write_atomic(out, lambda target: _write(rows, target, numbers, spilled.counts, metadata))
    for warning in _warnings(spilled, prepared):
        notify(warning)
    return prepared


def _warnings(spilled: SpilledLog, prepared: PreparedGroups) -> Iterator[str]:
    losses = spilled.losses
    remedies = exclusion_remedies(losses.by_cause)
    if problem := losses.problem(remedies):
        yield f"warning: {problem}. `ascl-train logged` refuses to train on these groups"
    elif warning := losses.warning(remedies):
        yield warning
    if prepared.copies:
        yield (
            f"warning: {prepared.copies} of {prepared.episodes} episodes are copies of another episode under "
            "a different id (equal conversation, sample number and times), so these conversations count more "
            "than once: remove the copies from the log"
        )
    if spilled.sampling_filters:
        yield (
            f"the episodes were sampled with {', '.join(sorted(spilled.sampling_filters))}. Training models "
            "the temperature only, so ratios to the sampling policy are approximate; sample without these "
            "settings for exact ratios"
        )


def _no_usable_episode(log: Path, losses: ModeLosses) -> GroupError:
    causes = ", ".join(f"{cause}: {count}" for cause, count in losses.counts().items())
    return GroupError(
        f"no episode in {log} can be used ({causes or 'it is empty'}): a group needs at least two scored "
        "episodes of one prompt"
    )


def _sources(spilled: SpilledLog, log_sha256: Future[str], rewards_sha256: Future[str]) -> dict[str, Any]:
    """Metadata about the log and its rewards."""
    return {
        "policy_versions": sorted(spilled.policy_versions),
        "rulebook_digests": sorted(spilled.rulebook_digests),
        "sampled_with": sorted(spilled.sampling_filters),
        "log_sha256": log_sha256.result(),
        "rewards_sha256": rewards_sha256.result(),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _duplicate_rows(ids: Partitions, losses: ModeLosses) -> npt.NDArray[np.int64]:
    """Returns the rows whose episode id occurs in an earlier row."""
    duplicates = []
    for index in range(len(ids)):
        records = ids.read(index)
        scored, unscored = records[records["row"] >= 0], records[records["row"] < 0]
        first = np.unique(scored["id"], return_index=True)[1]
        later = np.delete(scored, first)
        duplicates.append(later["row"])
        # The reward of a repeated line is already taken, so that line was counted as not scored.
        repeated = unscored[np.isin(unscored["id"], scored["id"])]
        for mode, count in _count_by_mode(repeated["consulted"]):
            losses.exempt_counted(SECOND_EPISODE, mode, count, NOT_SCORED)
        for mode, count in _count_by_mode(later["consulted"]):
            losses.exempt_counted(SECOND_EPISODE, mode, count)
    return np.concatenate(duplicates)


def _count_by_mode(consulted: npt.NDArray[np.bool_]) -> list[tuple[Mode, int]]:
    """Returns the modes that occur, with their counts."""
    counts = [("consult", int(consulted.sum())), ("direct", int((~consulted).sum()))]
    return [(mode, count) for mode, count in counts if count]  # type: ignore[misc]


def _compute_advantages(
    numbers: Partitions,
    duplicates: npt.NDArray[np.int64],
    settings: AdvantageSettings,
    losses: ModeLosses,
) -> dict[str, int]:
    """Fills in the computed columns, one partition at a time.

    Returns:
        The number of included episodes, of their groups, of episodes with a corrected reward, and of copies
        of an episode under another id.
    """
    options = settings.model_dump()
    counts: Counter[str] = Counter()
    for index in range(len(numbers)):
        records = numbers.read(index).copy()
        included = _select(records, ~np.isin(records["row"], duplicates), losses)
        chosen = records[included]
        rewards, modes, groups = chosen["reward"], chosen["consulted"], chosen["group"]
        records["included"] = included
        records["weight"][included] = inverse_frequency_weights(
            modes, groups, alpha=settings.alpha, w_max=settings.w_max
        )
        records["advantage_ifpo"][included] = ifpo_advantages(rewards, modes, groups, **options)
        grpo = ifpo_advantages(rewards, modes, groups, **(options | {"alpha": 0.0}))
        records["advantage_grpo"][included] = grpo
        numbers.replace(index, records)
        counts += Counter(
            episodes=len(chosen),
            groups=len(np.unique(groups)),
            corrected=int(chosen["corrected"].sum()),
            copies=len(chosen) - len(np.unique(chosen[["group", "content"]])),
        )
    return {name: counts[name] for name in ("episodes", "groups", "corrected", "copies")}


def _select(records: Records, included: npt.NDArray[np.bool_], losses: ModeLosses) -> npt.NDArray[np.bool_]:
    """Clears the flag of records whose group mixes settings or has only one episode."""
    if not len(records):
        return included
    group = np.unique(records["group"], return_inverse=True)[1]
    lowest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(group.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group[included], records["setting"][included])
    np.maximum.at(highest, group[included], records["setting"][included])
    mixed = included & (lowest != highest)[group]
    for consulted in records["consulted"][mixed]:
        losses.leave_out(MIXED_GROUP, "consult" if consulted else "direct")
    included &= ~mixed
    alone = included & (np.bincount(group[included], minlength=len(lowest)) == 1)[group]
    for mode, count in _count_by_mode(records["consulted"][alone]):
        losses.exempt_counted(ALONE, mode, count)
    included &= ~alone
    return included


def _write(
    rows: BinaryIO,
    target: Path,
    numbers: Partitions,
    counts: list[npt.NDArray[np.int64]],
    metadata: dict[str, Any],
) -> None:
    """Writes the included rows with their computed columns: one Parquet row group per spilled batch."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    schema = schema_with_metadata(metadata)
    rows.seek(0)
    repetitive = ["group_id", "prompt_id", "kind", "mode", "policy_version", "tools"]
    with (
        pyarrow.ipc.open_stream(rows) as batches,
        pyarrow.parquet.ParquetWriter(
            target, schema, compression="zstd", compression_level=1, use_dictionary=repetitive
        ) as writer,
    ):
        for batch, batch_counts in zip(batches, counts, strict=True):
            records = np.concatenate(
                [numbers.read_next(index, int(count)) for index, count in enumerate(batch_counts)]
            )
            records = records[np.argsort(records["row"])]  # merges the partitions: each is in row order
            chosen = batch.filter(pyarrow.array(records["included"]))
            columns = {name: chosen.column(name) for name in chosen.schema.names}
            for name in COMPUTED_COLUMNS:
                columns[name] = pyarrow.array(records[name][records["included"]])
            if len(chosen):
                writer.write_table(pyarrow.table([columns[name] for name in schema.names], schema=schema))
