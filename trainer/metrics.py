"""What a file of groups can teach: how often each kind consults, what that earns, how groups are made up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.metrics import BENIGN, Difference, Rate, difference_by_prompt, wilson
from evaluation.prompts import KINDS
from trainer.groups import read_table

MANY_ONE_MODE_GROUPS = 0.5
LIGHT = (
    "group_id",
    "prompt_id",
    "kind",
    "mode",
    "reward",
    "weight",
    "advantage_ifpo",
    "advantage_grpo",
    "failed_consultations",
)
"""The columns that statistics need; texts are left unread."""


@dataclass(frozen=True)
class KindStatistics:
    """One kind of prompt. `gain` is D: the mean reward of consulting minus that of answering directly."""

    episodes: int
    groups: int
    one_mode_groups: int
    consult: Rate
    reward: float
    reward_consult: float | None
    reward_direct: float | None
    gain: Difference | None


@dataclass(frozen=True)
class GroupStatistics:
    """All groups. A group teaches nothing when all its rewards are equal, and nothing of consulting when it
    holds one mode only."""

    episodes: int
    groups: int
    kinds: dict[str, KindStatistics]
    one_mode_groups: int
    equal_reward_groups: int
    teaching_groups: int
    """Groups with both modes and with unequal rewards: the only ones that say which mode is better."""
    failed_consultations: int
    largest_weight: float
    effective_share: float
    """`(sum w)^2 / (N sum w^2)`: 1 when all weights are equal."""
    push: dict[str, dict[str, float]]
    """Sum of the advantages by method and mode: which way the decision to consult is pushed."""
    findings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def group_statistics(path: Path) -> GroupStatistics:
    """Statistics of a file that `prepare` wrote.

    Raises:
        GroupError: it cannot be read.
    """
    table, _ = read_table(path, LIGHT, dictionary=("group_id", "prompt_id", "kind", "mode"))
    group, _ = _codes(table, "group_id")
    prompt, _ = _codes(table, "prompt_id")
    kind, kind_names = _codes(table, "kind")
    mode, mode_names = _codes(table, "mode")
    consulted = np.array([name == "consult" for name in mode_names], dtype=bool)[mode]
    reward, weight = (table.column(name).to_numpy() for name in ("reward", "weight"))
    present = {str(name) for name in kind_names}
    kinds = {
        name: _kind(
            prompt, reward, consulted, group, kind == kind_names.index(None if name == "None" else name)
        )
        for name in [*(name for name in KINDS if name in present), *sorted(present - set(KINDS))]
    }
    size, consulting = np.bincount(group), np.bincount(group, consulted)
    high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
    np.maximum.at(high, group, reward)
    np.minimum.at(low, group, reward)
    one_mode, equal = (consulting == 0) | (consulting == size), high == low
    return GroupStatistics(
        episodes=len(reward),
        groups=len(size),
        kinds=kinds,
        one_mode_groups=int(one_mode.sum()),
        equal_reward_groups=int(equal.sum()),
        teaching_groups=int((~one_mode & ~equal).sum()),
        failed_consultations=int(table.column("failed_consultations").to_numpy().sum()),
        largest_weight=round(float(weight.max()), 6),
        effective_share=round(float(weight.sum() ** 2 / (len(weight) * (weight**2).sum())), 6),
        push={
            method: {
                name: round(float(table.column(f"advantage_{method}").to_numpy()[here].sum()), 6) + 0.0
                for name, here in (("consult", consulted), ("direct", ~consulted))
            }
            for method in ("ifpo", "grpo")
        },
        findings=_findings(kinds, float(one_mode.mean())),
    )


def _codes(table: Any, column: str) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """A column as integers from 0 and the values that they stand for; a null is a value too."""
    import pyarrow.compute

    chunks = table.column(column).unify_dictionaries().chunks
    values = chunks[0].dictionary.to_pylist()
    codes = [chunk.indices for chunk in chunks]
    if any(chunk.null_count for chunk in codes):
        codes = [pyarrow.compute.fill_null(chunk, len(values)) for chunk in codes]
        values.append(None)
    return np.concatenate([chunk.to_numpy() for chunk in codes]).astype(np.intp), values


def _kind(
    prompt: Any, reward: Any, consulted: Any, group: Any, here: npt.NDArray[np.bool_]
) -> KindStatistics:
    def mean(values: Any) -> float | None:
        return round(float(values.mean()), 6) if len(values) else None

    values, chosen = reward[here], consulted[here]
    groups = group[here]
    size, consulting = np.bincount(groups), np.bincount(groups, chosen)
    one_mode = (size > 0) & ((consulting == 0) | (consulting == size))
    return KindStatistics(
        episodes=len(values),
        groups=int((size > 0).sum()),
        one_mode_groups=int(one_mode.sum()),
        consult=wilson(int(chosen.sum()), len(values)),
        reward=round(float(values.mean()), 6),
        reward_consult=mean(values[chosen]),
        reward_direct=mean(values[~chosen]),
        gain=difference_by_prompt(prompt[here], values, chosen),
    )


def _findings(kinds: dict[str, KindStatistics], one_mode: float) -> list[str]:
    """What must be known before training: reward alone teaches to stop consulting only where D < 0."""
    said = []
    for name in BENIGN:
        if (kind := kinds.get(name)) is None:
            continue
        if kind.gain is None:
            said.append(f"{name}: only one mode occurs, so what consulting gains is unknown.")
        elif kind.gain.value >= 0:
            said.append(
                f"{name}: D is {kind.gain.value:+.2f}, not below zero, so no method can learn from reward "
                "alone to consult less here."
            )
        elif kind.gain.sign == 0:
            said.append(f"{name}: D is {kind.gain.value:+.2f}, but its interval does not exclude zero.")
    harmful = kinds.get("harmful")
    if harmful is not None and harmful.gain is not None and harmful.gain.value < 0:
        said.append(
            f"harmful: D is {harmful.gain.value:+.2f}, below zero, so training will teach to consult less on "
            "harmful prompts too: look at what the rules say there before you train."
        )
    if one_mode > MANY_ONE_MODE_GROUPS:
        said.append(
            f"{one_mode:.0%} of the groups hold one mode only and say nothing of the other, and no weighting "
            "mends that: sample with `ascl-agent run --mode-share consult=0.25 --mode-share direct=0.25`."
        )
    return said
