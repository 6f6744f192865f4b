"""Which advantage each token of a logged episode carries, for every method on one path.

A method is a reward and a weighting: `grpo` weighs all modes alike, `ifpo` by inverse frequency, `grpo+cost`
as `grpo` does after a price on consulting. What `prepare` was told (alpha, bound, baseline, scaling) holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.ifpo import Floats, decision_ratios, ifpo_advantages, split_advantages, with_consultation_cost

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig


@dataclass(frozen=True)
class Credit:
    """(N,) advantages: of the tokens up to the decision, and of those after it. NaN where there is none."""

    decision: Floats
    rest: Floats

    @property
    def nothing(self) -> Any:
        """(N,) whether an episode has nothing to teach."""
        return (np.nan_to_num(self.decision) == 0) & (np.nan_to_num(self.rest) == 0)


def assign_credit(
    columns: dict[str, list[Any]],
    settings: dict[str, Any],
    arguments: LoggedArguments,
    config: LoggedConfig,
) -> Credit:
    """The advantages of the episodes of a file of groups.

    Args:
        columns: `reward`, `mode`, `group_id` and `consultations` of the file.
        settings: what the file says of how it was prepared: `alpha`, `w_max`, `baseline` and so on.
        arguments: of the run: `method` and `assign_credit`.
        config: of the run: `cost` and `frequency`, of which `batch` is the whole file.
    """
    reward = np.array(columns["reward"], dtype=float)
    rated = np.isfinite(reward)
    mode, group, times = (np.array(columns[name])[rated] for name in ("mode", "group_id", "consultations"))
    earned = reward[rated]
    options = {**settings, "frequency": config.frequency}
    if arguments.method != "ifpo":
        options["alpha"] = 0.0
    if arguments.method == "grpo+cost":
        earned = with_consultation_cost(earned, times, config.cost)
    decision, rest = np.full(len(reward), np.nan), np.full(len(reward), np.nan)
    if arguments.credit == "split":
        decision[rated], rest[rated] = split_advantages(earned, mode, group, **options)
    else:
        decision[rated] = rest[rated] = ifpo_advantages(earned, mode, group, **options)
    return Credit(decision, rest)


def token_advantages(row: dict[str, Any], ratio: float = 1.0) -> list[float]:
    """(C,) of a row: `before` times `ratio` up to the decision and on it, `after` from there on.

    Thoughts before a decision were drawn together with it: in a stratified group those that led to a rare
    mode are as much too frequent as the mode is, so they carry its ratio. What follows is the mode's own.
    """
    last = row["decision"][1]
    before, after = row["advantage"], row["after"]
    length = len(row["completion_ids"])
    return [ratio * before] * last + [after] * (length - last)


def smoothed_rates(modes: list[str], forced: list[bool], groups: list[str]) -> dict[str, float]:
    """How often the free episodes of each group consulted, half an episode of each mode added."""
    free: dict[str, list[bool]] = {group: [] for group in groups}
    for mode, made, group in zip(modes, forced, groups, strict=True):
        if not made:
            free[group].append(mode == "consult")
    return {group: (sum(chose) + 0.5) / (len(chose) + 1) for group, chose in free.items()}


def decision_ratios_of(
    consult: dict[str, float], modes: list[str], forced: list[bool], groups: list[str]
) -> Floats:
    """(N,) `rho` of every episode's decision, where each group's policy consults with that probability."""
    chance = [
        consult[group] if mode == "consult" else 1 - consult[group]
        for mode, group in zip(modes, groups, strict=True)
    ]
    found: Floats = decision_ratios(
        np.clip(chance, 0.0, 1.0), np.array(modes), np.array(forced, dtype=float), np.array(groups)
    )
    return found
