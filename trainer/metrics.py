"""What a file of groups can teach: how often each kind consults, what that earns, how groups are made up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import BENIGN, Difference, Rate, mean_difference, wilson
from evaluation.prompts import KINDS
from trainer.groups import read_groups

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
    columns, _ = read_groups(path, LIGHT)
    kind = np.array([str(kind) for kind in columns["kind"]])
    mode, group = np.array(columns["mode"]), np.array(columns["group_id"])
    reward, weight = np.array(columns["reward"]), np.array(columns["weight"])
    names = [*(name for name in KINDS if name in kind), *sorted(set(kind.tolist()) - set(KINDS))]
    kinds = {
        name: _kind(
            [prompt for prompt, here in zip(columns["prompt_id"], kind == name, strict=True) if here],
            reward[kind == name],
            mode[kind == name] == "consult",
            len(np.unique(group[kind == name])),
        )
        for name in names
    }
    index = np.unique(group, return_inverse=True)[1]
    size, consulted = np.bincount(index), np.bincount(index, mode == "consult")
    high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
    np.maximum.at(high, index, reward)
    np.minimum.at(low, index, reward)
    return GroupStatistics(
        episodes=len(reward),
        groups=len(size),
        kinds=kinds,
        one_mode_groups=int(((consulted == 0) | (consulted == size)).sum()),
        equal_reward_groups=int((high == low).sum()),
        failed_consultations=sum(columns["failed_consultations"]),
        largest_weight=round(float(weight.max()), 6),
        effective_share=round(float(weight.sum() ** 2 / (len(weight) * (weight**2).sum())), 6),
        push={
            method: {
                name: round(float(np.array(columns[f"advantage_{method}"])[mode == name].sum()), 6) + 0.0
                for name in ("consult", "direct")
            }
            for method in ("ifpo", "grpo")
        },
        findings=_findings(kinds),
    )


def _kind(prompts: list[str], reward: Any, consulted: Any, groups: int) -> KindStatistics:
    def mean(values: Any) -> float | None:
        return round(float(values.mean()), 6) if len(values) else None

    return KindStatistics(
        episodes=len(reward),
        groups=groups,
        consult=wilson(int(consulted.sum()), len(reward)),
        reward=round(float(reward.mean()), 6),
        reward_consult=mean(reward[consulted]),
        reward_direct=mean(reward[~consulted]),
        gain=mean_difference(list(zip(prompts, reward.tolist(), consulted.tolist(), strict=True))),
    )


def _findings(kinds: dict[str, KindStatistics]) -> list[str]:
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
    return said
