"""Statistics of a groups file: consult rates, the gain of consulting, and the composition of groups."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.metrics import BENIGN, MIN_PROMPTS, Difference, PromptSums, Rate, wilson
from evaluation.prompts import KINDS
from trainer.groups.parquet import open_groups
from trainer.groups.partitions import Partitions, Records, open_partitions, partition_count
from trainer.ifpo import CostWhere

MAX_ONE_MODE_SHARE = 0.5
"""Share of one-mode groups above which a finding is reported."""
STATISTICS_COLUMNS = (
    "group_id",
    "prompt_id",
    "kind",
    "mode",
    "forced",
    "reward",
    "weight",
    "advantage_ifpo",
    "advantage_grpo",
    "failed_consultations",
)
"""Columns that the statistics read; texts are not read."""
PARTITION_ROWS = 65536
_RECORD_FIELDS = [
    ("prompt", "i8"),
    ("group", "i8"),
    ("kind", "i4"),
    ("consulted", "?"),
    ("forced", "?"),
    ("reward", "f8"),
]


@dataclass(frozen=True)
class KindStatistics:
    """Statistics of one kind of prompt.

    `gain` is D: the mean reward of consulting minus that of direct answers.
    """

    episodes: int
    groups: int
    one_mode_groups: int
    consult: Rate
    """Consult rate of the policy: episodes with a forced mode do not count."""
    consulting: int
    """Episodes that consulted, with a free or a forced mode."""
    reward: float
    reward_consult: float | None
    reward_direct: float | None
    gain: Difference | None


@dataclass(frozen=True)
class GroupStatistics:
    """Statistics of all groups.

    A group with equal rewards has no training signal. A group with only one mode has none about consulting.
    """

    episodes: int
    groups: int
    kinds: dict[str, KindStatistics]
    one_mode_groups: int
    equal_reward_groups: int
    teaching_groups: int
    """Groups with both modes and unequal rewards: the only ones that compare the modes."""
    failed_consultations: int
    largest_weight: float
    effective_share: float
    """`(sum w)^2 / (N sum w^2)`: 1 if all weights are equal."""
    push: dict[str, dict[str, float]]
    """Sum of the advantages by method and mode: the direction in which the decision to consult moves."""
    findings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def group_statistics(path: Path) -> GroupStatistics:
    """Computes the statistics of a groups file in memory that does not grow with the file.

    Raises:
        GroupError: the file cannot be read.
    """
    with open_groups(path, dictionary=("group_id", "prompt_id", "kind", "mode")) as (file, _):
        rows = file.metadata.num_rows
        # Episodes of a group and groups of a prompt are needed together, but may be anywhere in the file.
        with (
            tempfile.TemporaryDirectory() as folder,
            open_partitions(Path(folder), _RECORD_FIELDS, partition_count(rows, PARTITION_ROWS)) as by_prompt,
        ):
            totals, names = _Totals(), list[str]()
            for batch in file.iter_batches(columns=list(STATISTICS_COLUMNS)):
                totals.add(batch)
                _add_records(batch, by_prompt, names)
            kinds = {name: _KindTotals() for name in names}
            for index in range(len(by_prompt)):
                records = by_prompt.read(index)
                for code, name in enumerate(names):
                    kinds[name].add(records[records["kind"] == code])
    ordered = [*(name for name in KINDS if name in kinds), *sorted(set(kinds) - set(KINDS))]
    by_kind = {name: kinds[name].statistics() for name in ordered}
    groups = sum(kind.groups for kind in kinds.values())
    one_mode = sum(kind.one_mode_groups for kind in kinds.values())
    return GroupStatistics(
        episodes=rows,
        groups=groups,
        kinds=by_kind,
        one_mode_groups=one_mode,
        equal_reward_groups=sum(kind.equal_reward_groups for kind in kinds.values()),
        teaching_groups=sum(kind.teaching_groups for kind in kinds.values()),
        failed_consultations=totals.failed_consultations,
        largest_weight=round(totals.largest_weight, 6),
        effective_share=round(totals.weight**2 / (rows * totals.squared_weight), 6),
        push={
            method: {mode: round(value, 6) + 0.0 for mode, value in sums.items()}
            for method, sums in totals.push.items()
        },
        findings=_findings(by_kind, one_mode / groups),
    )


def has_signal(path: Path, cost: float = 0.0, where: CostWhere = "always") -> bool:
    """Returns whether the rewards differ within any group. If not, all advantages are zero.

    Args:
        path: groups file.
        cost: reward subtracted per consultation, as by the method `grpo+cost`.
        where: groups that the cost is charged in; with `direct_as_good`, it separates equal rewards of both
            modes, and never equals out unequal ones.

    Raises:
        GroupError: the file cannot be read.
    """
    separates_modes = where == "direct_as_good" and cost > 0
    modes: dict[str, set[bool]] = {}
    highest: dict[str, float] = {}
    lowest: dict[str, float] = {}
    with open_groups(path) as (file, _):
        for batch in file.iter_batches(columns=["group_id", "reward", "consultations"]):
            reward, count = batch["reward"].to_numpy(), batch["consultations"].to_numpy()
            net_reward = reward if separates_modes else reward - cost * count
            for group, value, consulted in zip(
                batch["group_id"].to_pylist(), net_reward.tolist(), (count > 0).tolist(), strict=True
            ):
                modes.setdefault(group, set()).add(consulted)
                highest[group] = max(value, highest.get(group, value))
                lowest[group] = min(value, lowest.get(group, value))
    return any(
        highest[group] > lowest[group] or (separates_modes and len(modes[group]) == 2) for group in highest
    )


class _Totals:
    """Sums over all episodes, independent of their group."""

    def __init__(self) -> None:
        self.failed_consultations = 0
        self.largest_weight = self.weight = self.squared_weight = 0.0
        self.push = {method: {"consult": 0.0, "direct": 0.0} for method in ("ifpo", "grpo")}

    def add(self, batch: Any) -> None:
        weight, consulted = batch["weight"].to_numpy(), _consulted(batch)
        self.failed_consultations += int(batch["failed_consultations"].to_numpy().sum())
        self.largest_weight = max(self.largest_weight, float(weight.max(initial=0.0)))
        self.weight += float(weight.sum())
        self.squared_weight += float((weight**2).sum())
        for method, sums in self.push.items():
            advantage = batch[f"advantage_{method}"].to_numpy()
            sums["consult"] += float(advantage[consulted].sum())
            sums["direct"] += float(advantage[~consulted].sum())


class _KindTotals:
    """Counts of one kind of prompt, added in pieces. No prompt may be split over two pieces."""

    def __init__(self) -> None:
        self.groups = self.one_mode_groups = self.equal_reward_groups = self.teaching_groups = 0
        self._episodes, self._rewards = np.zeros(2, dtype=int), np.zeros(2)  # direct, consulting
        self._free = np.zeros(2, dtype=int)  # of these, with a free mode
        self._gain = PromptSums()

    def add(self, records: Records) -> None:
        consulted, reward = records["consulted"], records["reward"]
        group = np.unique(records["group"], return_inverse=True)[1]
        size, consulting = np.bincount(group), np.bincount(group, consulted)
        high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
        np.maximum.at(high, group, reward)
        np.minimum.at(low, group, reward)
        one_mode, equal = (consulting == 0) | (consulting == size), high == low
        self.groups += len(size)
        self.one_mode_groups += int(one_mode.sum())
        self.equal_reward_groups += int(equal.sum())
        self.teaching_groups += int((~one_mode & ~equal).sum())
        self._episodes += np.bincount(consulted, minlength=2)
        self._free += np.bincount(consulted[~records["forced"]], minlength=2)
        self._rewards += np.bincount(consulted, reward, minlength=2)
        self._gain.add(np.unique(records["prompt"], return_inverse=True)[1], reward, consulted)

    def statistics(self) -> KindStatistics:
        direct, consult = (
            round(float(total / count), 6) if count else None
            for total, count in zip(self._rewards, self._episodes, strict=True)
        )
        episodes = int(self._episodes.sum())
        return KindStatistics(
            episodes=episodes,
            groups=self.groups,
            one_mode_groups=self.one_mode_groups,
            consult=wilson(int(self._free[1]), int(self._free.sum())),
            consulting=int(self._episodes[1]),
            reward=round(float(self._rewards.sum() / episodes), 6),
            reward_consult=consult,
            reward_direct=direct,
            gain=self._gain.difference(),
        )


def _add_records(batch: Any, by_prompt: Partitions, names: list[str]) -> None:
    """Adds a batch to the partitions, and its new kinds to `names`."""
    kind, values = _codes(batch["kind"])
    names += [str(value) for value in values if str(value) not in names]
    prompt = _hashes(batch["prompt_id"])
    by_prompt.add(
        prompt,
        prompt=prompt,
        group=_hashes(batch["group_id"]),
        kind=np.array([names.index(str(value)) for value in values])[kind],
        consulted=_consulted(batch),
        forced=batch["forced"].to_numpy(zero_copy_only=False),
        reward=batch["reward"].to_numpy(),
    )


def _consulted(batch: Any) -> npt.NDArray[np.bool_]:
    mode, values = _codes(batch["mode"])
    return np.array([value == "consult" for value in values], dtype=bool)[mode]


def _hashes(column: Any) -> npt.NDArray[np.int64]:
    code, values = _codes(column)
    return np.array([hash(value) for value in values])[code]


def _codes(column: Any) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """Returns a column as integer codes from 0, and the value of each code. Null is a value too."""
    import pyarrow.compute

    values, codes = column.dictionary.to_pylist(), column.indices
    if codes.null_count:
        codes = pyarrow.compute.fill_null(codes, len(values))
        values.append(None)
    return codes.to_numpy().astype(np.intp), values


def _findings(kinds: dict[str, KindStatistics], one_mode: float) -> list[str]:
    """Returns warnings to read before training. Reward alone reduces consulting only if D < 0."""
    findings = []
    for name in BENIGN:
        if (kind := kinds.get(name)) is None:
            continue
        if kind.gain is None:
            findings.append(f"{name}: only one mode occurs, so the gain of consulting is unknown.")
        elif kind.gain.value >= 0:
            findings.append(
                f"{name}: D is {kind.gain.value:+.2f}, not below zero, so no method can learn from reward "
                "alone to consult less here."
            )
        elif kind.gain.sign == 0:
            reason = (
                f"fewer than {MIN_PROMPTS} prompts showed each mode, too few for an interval"
                if kind.gain.low is None
                else "its interval does not exclude zero"
            )
            findings.append(f"{name}: D is {kind.gain.value:+.2f}, but {reason}.")
    harmful = kinds.get("harmful")
    if harmful is not None and harmful.gain is not None and harmful.gain.value < 0:
        findings.append(
            f"harmful: D is {harmful.gain.value:+.2f}, below zero, so training will reduce consulting on "
            "harmful prompts too: check the rules for these prompts before you train."
        )
    if one_mode > MAX_ONE_MODE_SHARE:
        findings.append(
            f"{one_mode:.0%} of the groups contain one mode only and cannot compare the modes. No weighting "
            "can fix that: sample with `ascl-agent run --mode-share consult=0.25 --mode-share direct=0.25`."
        )
    return findings
