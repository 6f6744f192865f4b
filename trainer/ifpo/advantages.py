"""Inverse Frequency Policy Optimization: advantages that give a rare mode as much weight as a common one.

The paper's abstract (arXiv 2602.13562) states the purpose of IFPO: reinforcement learning drifts towards
always consulting the rules, and rebalancing the advantage estimates by inverse frequency counteracts that. It
gives no formula, so these parts are choices of this implementation:

- the weight is `(1 / (K f)) ** alpha` with the bound `w_max`; weights are scaled to sum to the group's size;
- the baseline is the weighted mean (`"balanced"`), so that a group's advantages sum to zero. The abstract
  alone suggests multiplying plain advantages by a weight (`"group"`); their sum is then not zero;
- the divisor is the weighted standard deviation, with GRPO's sample correction and `eps`;
- frequencies are counted in the group (`"group"`), or over all groups passed together (`"batch"`);
- a mode is any label, so it can be the number of consultations: each of K modes has the weight `1 / K`;
- `credit="split"` (`split_advantages`) separates the advantage of the decision from that within its mode;
- a group may contain forced modes, so that a rare mode occurs at all: see `trainer/ifpo/stratified.py`.

With `alpha = 0` this is the advantage of GRPO (arXiv 2402.03300, section 4.1.2), as TRL 1.16 computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainer.ifpo.arrays import Floats, Indices, like_input, same_length, to_floats, to_labels

Baseline = Literal["balanced", "group"]
Scale = Literal["group", "batch", "none"] | bool
Frequency = Literal["group", "batch"]


def inverse_frequency_weights(
    modes: Any, groups: Any, *, alpha: float = 1.0, w_max: float = 4.0, frequency: Frequency = "group"
) -> Floats:
    """Computes weights `w_i = min((1 / (K f)) ** alpha, w_max)`, scaled so that they sum to G in each group.

    `f` is the share of the episode's mode among the G episodes of its group (or of all N, with
    `frequency="batch"`), `K` the number of modes there.

    Args:
        modes: (N,) labels of any one type.
        groups: (N,) labels of any one type; groups may differ in size and lie in any order.
        alpha: 0 weights all episodes equally, 1 gives every mode the same total weight.
        w_max: upper bound on a weight before scaling.
        frequency: scope in which `f` and `K` are counted; weights are scaled per group in both cases.

    Returns:
        (N,) float64.

    Raises:
        ValueError: unequal lengths, more than one dimension, or a setting out of range.
    """
    mode, group = to_labels(modes, "modes"), to_labels(groups, "groups")
    same_length(modes=mode, groups=group)
    return _weights(mode, group, alpha, w_max, frequency)


def ifpo_advantages(
    rewards: Any,
    modes: Any,
    groups: Any,
    *,
    alpha: float = 1.0,
    w_max: float = 4.0,
    baseline: Baseline = "balanced",
    scale_rewards: Scale = True,
    frequency: Frequency = "group",
    eps: float = 1e-4,
) -> Any:
    """Computes advantages `A_i = w_i (r_i - mu) / (s + eps)`.

    `mu` is the group's weighted mean reward (`baseline="balanced"`) or its plain mean (`"group"`),
    and `s = sqrt(sum_i w_i (r_i - mu)^2 / (G - 1))`. An episode alone in its group has A = 0.

    Args:
        rewards: (N,) numbers, numpy or torch, all finite.
        modes: (N,) mode of each episode, such as `consult` or `direct`.
        groups: (N,) group of each episode.
        alpha, w_max, frequency: see `inverse_frequency_weights`.
        scale_rewards: `"group"` or True divides by `s` of the group, `"batch"` by one `s` over all N rewards
            about their weighted mean, `"none"` or False does not divide (then `eps` is unused).
        eps: added to `s`.

    Returns:
        (N,) like `rewards`: of its floating type (float64 for integers); a tensor, on its device, for a
        tensor.

    Raises:
        ValueError: unequal lengths, a reward that is not finite, or an invalid setting.
    """
    batch = _batch(rewards, modes, groups, alpha, w_max, baseline, scale_rewards, frequency, eps)
    return like_input(rewards, batch.scaled(batch.weight * batch.deviation, batch.weight))


def split_advantages(
    rewards: Any,
    modes: Any,
    groups: Any,
    *,
    alpha: float = 1.0,
    w_max: float = 4.0,
    baseline: Baseline = "balanced",
    scale_rewards: Scale = True,
    frequency: Frequency = "group",
    eps: float = 1e-4,
) -> tuple[Any, Any]:
    """Computes the advantages of the decision's tokens and of the tokens after it (`credit="split"`).

    With `rbar` the group's mean reward of the episode's mode, `r_i - mu = (rbar - mu) + (r_i - rbar)`. The
    first part is the advantage between modes: the decision carries it, weighted and scaled as the whole is in
    `ifpo_advantages`. The second is the advantage within the mode: the tokens after the decision carry it,
    unweighted, scaled by the plain standard deviation (that of GRPO) over the same rewards.

    Arguments, errors and types are those of `ifpo_advantages`.

    Returns:
        (N,) advantages of the decision, and (N,) of the tokens after it.
    """
    batch = _batch(rewards, modes, groups, alpha, w_max, baseline, scale_rewards, frequency, eps)
    plain = _batch(rewards, modes, groups, 0.0, w_max, baseline, scale_rewards, frequency, eps)
    cell = batch.group * (batch.mode.max(initial=0) + 1) + batch.mode
    between = _mean(batch.deviation, np.ones_like(batch.weight), cell)
    within = batch.deviation - between
    return (
        like_input(rewards, batch.scaled(batch.weight * between, batch.weight)),
        like_input(rewards, plain.scaled(within, plain.weight)),
    )


@dataclass(frozen=True)
class _Batch:
    """N episodes by index of mode and group, with their weights and their rewards minus the baseline."""

    reward: Floats
    mode: Indices
    group: Indices
    weight: Floats
    centring: Floats
    deviation: Floats
    scale: str
    eps: float

    def scaled(self, values: Floats, weight: Floats) -> Floats:
        """(N,) `values` divided by the standard deviation; 0 where an episode is alone in its group."""
        size = np.bincount(self.group)
        scaled = values.copy()
        if self.scale == "group":
            spread = np.sqrt(np.bincount(self.group, weight * self.deviation**2) / np.maximum(size - 1, 1))
            scaled = _divide(values, spread[self.group] + self.eps)
        elif self.scale == "batch":
            deviation = self.reward - _mean(self.reward, self.centring, np.zeros_like(self.group))
            spread = np.sqrt((weight * deviation**2).sum() / max(len(self.reward) - 1, 1))
            scaled = _divide(values, np.full_like(values, spread + self.eps))
        scaled[size[self.group] == 1] = 0.0
        return scaled


def _batch(
    rewards: Any,
    modes: Any,
    groups: Any,
    alpha: float,
    w_max: float,
    baseline: Baseline,
    scale_rewards: Scale,
    frequency: Frequency,
    eps: float,
) -> _Batch:
    scale = _scale(scale_rewards)
    if baseline not in ("balanced", "group"):
        raise ValueError(f"baseline is {baseline!r}, but it must be 'balanced' or 'group'")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps is {eps!r}, but it must be a number of at least 0")
    reward = to_floats(rewards, "rewards")
    mode, group = to_labels(modes, "modes"), to_labels(groups, "groups")
    same_length(rewards=reward, modes=mode, groups=group)
    weight = _weights(mode, group, alpha, w_max, frequency)
    centring = weight if baseline == "balanced" else np.ones_like(weight)
    # Rewards relative to the group's smallest, so that equal rewards cancel to exactly zero.
    smallest = np.full(group.max(initial=-1) + 1, np.inf)
    np.minimum.at(smallest, group, reward)
    shifted = reward - smallest[group]
    deviation = shifted - _mean(shifted, centring, group)
    return _Batch(reward, mode, group, weight, centring, deviation, scale, eps)


def _weights(mode: Indices, group: Indices, alpha: float, w_max: float, frequency: Frequency) -> Floats:
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha is {alpha!r}, but it must be a number of at least 0")
    if not w_max > 0:
        raise ValueError(f"w_max is {w_max!r}, but it must be above 0")
    if frequency not in ("group", "batch"):
        raise ValueError(f"frequency is {frequency!r}, but it must be 'group' or 'batch'")
    if not len(group):
        return np.zeros(0)
    scope = group if frequency == "group" else np.zeros_like(group)
    cell = scope * (mode.max() + 1) + mode  # one index per pair of scope and mode
    counts = np.bincount(cell)
    total = np.bincount(scope)
    present = np.bincount(np.flatnonzero(counts) // (mode.max() + 1), minlength=len(total))  # K of each scope
    with np.errstate(over="ignore"):  # a large alpha overflows, and w_max bounds it
        raw: Floats = np.minimum((total[scope] / (present[scope] * counts[cell])) ** alpha, w_max)
    normaliser: Floats = np.bincount(group) / np.bincount(group, raw)
    return raw * normaliser[group]


def _mean(values: Floats, weight: Floats, group: Indices) -> Floats:
    """(N,) weighted mean of each episode's group."""
    # Unused group indices have no weight; for empty input, bincount returns integers.
    total = np.bincount(group, weight).astype(float)
    means: Floats = np.divide(np.bincount(group, weight * values), total, out=total.copy(), where=total > 0)
    return means[group]


def _divide(values: Floats, by: Floats) -> Floats:
    """Computes `values / by`; zero stays zero, even if `by` is zero."""
    quotient: Floats = np.divide(values, by, out=np.zeros_like(values), where=values != 0)
    return quotient


def _scale(scale_rewards: Scale) -> str:
    if isinstance(scale_rewards, bool):
        return "group" if scale_rewards else "none"
    if scale_rewards not in ("group", "batch", "none"):
        raise ValueError(f"scale_rewards is {scale_rewards!r}, but it must be 'group', 'batch' or 'none'")
    return scale_rewards
