"""Inverse Frequency Policy Optimization: advantages in which a rare mode speaks as loudly as a common one.

The paper's abstract (arXiv 2602.13562) says what IFPO is for: reinforcement learning drifts into consulting
the rules always, and rebalancing the advantage estimates by inverse frequency counteracts that. It gives no
formula. Of ours, these parts are choices, each of them a setting or said here:

- the weight `(1 / (K f)) ** alpha` and its bound `w_max`; weights are scaled to sum to the group's size;
- the baseline is the weighted mean (`"balanced"`), so that a group's advantages sum to zero. Multiplying
  plain advantages by a weight (`"group"`) is what the abstract alone suggests; there they do not;
- the weighted standard deviation divides, with the sample correction and `eps` where GRPO has them.

With `alpha = 0` this is the advantage of GRPO (arXiv 2402.03300, section 4.1.2), as TRL 1.16 computes it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Baseline = Literal["balanced", "group"]
Scale = Literal["group", "batch", "none"] | bool
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def inverse_frequency_weights(modes: Any, groups: Any, *, alpha: float = 1.0, w_max: float = 4.0) -> Floats:
    """Weights `w_i = min((1 / (K f)) ** alpha, w_max)`, scaled so that they sum to G in each group.

    `f` is the share of the episode's mode among the G episodes of its group, `K` the number of modes there.

    Args:
        modes: (N,) labels of any one type.
        groups: (N,) labels of any one type; groups may differ in size and lie in any order.
        alpha: 0 weighs all alike, 1 gives every mode the same total weight.
        w_max: bound on a weight before scaling.

    Returns:
        (N,) float64.

    Raises:
        ValueError: unequal lengths, more than one dimension, or a setting out of range.
    """
    mode, group = _labels(modes, "modes"), _labels(groups, "groups")
    _same_length(modes=mode, groups=group)
    return _weights(mode, group, alpha, w_max)


def ifpo_advantages(
    rewards: Any,
    modes: Any,
    groups: Any,
    *,
    alpha: float = 1.0,
    w_max: float = 4.0,
    baseline: Baseline = "balanced",
    scale_rewards: Scale = True,
    eps: float = 1e-4,
) -> Any:
    """Advantages `A_i = w_i (r_i - mu) / (s + eps)`.

    `mu` is the group's weighted mean reward (`baseline="balanced"`) or its plain one (`"group"`), and
    `s = sqrt(sum_i w_i (r_i - mu)^2 / (G - 1))`. An episode alone in its group has no peer, so A = 0.

    Args:
        rewards: (N,) numbers, numpy or torch, all finite.
        modes: (N,) what each episode chose, such as `consult` and `direct`.
        groups: (N,) which group each episode belongs to.
        alpha, w_max: see `inverse_frequency_weights`.
        scale_rewards: `"group"` or True divides by `s` of the group, `"batch"` by one `s` over all N rewards
            about their weighted mean, `"none"` or False by nothing (then `eps` has no part).
        eps: added to `s`.

    Returns:
        (N,) as `rewards`: of its floating type (float64 for integers), a tensor for a tensor, on its device.

    Raises:
        ValueError: unequal lengths, a reward that is not finite, or an unknown or impossible setting.
    """
    scale = _scale(scale_rewards)
    if baseline not in ("balanced", "group"):
        raise ValueError(f"baseline is {baseline!r}, but it must be 'balanced' or 'group'")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps is {eps!r}, but it must be a number of at least 0")
    reward = _numbers(rewards)
    mode, group = _labels(modes, "modes"), _labels(groups, "groups")
    _same_length(rewards=reward, modes=mode, groups=group)

    weight = _weights(mode, group, alpha, w_max)
    centring = weight if baseline == "balanced" else np.ones_like(weight)
    size = np.bincount(group)
    # Measured from the group's smallest reward, so that equal rewards cancel to exactly zero.
    floor = np.full(group.max(initial=-1) + 1, np.inf)
    np.minimum.at(floor, group, reward)
    shifted = reward - floor[group]
    deviation = shifted - _mean(shifted, centring, group)
    advantage = weight * deviation
    if scale == "group":
        spread = np.sqrt(np.bincount(group, weight * deviation**2) / np.maximum(size - 1, 1))
        advantage = _divide(advantage, spread[group] + eps)
    elif scale == "batch":
        apart = reward - _mean(reward, centring, np.zeros_like(group))
        spread = np.sqrt((weight * apart**2).sum() / max(len(reward) - 1, 1))
        advantage = _divide(advantage, np.full_like(advantage, spread + eps))
    advantage[size[group] == 1] = 0.0
    return _as(rewards, advantage)


def _weights(mode: Indices, group: Indices, alpha: float, w_max: float) -> Floats:
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha is {alpha!r}, but it must be a number of at least 0")
    if not w_max > 0:
        raise ValueError(f"w_max is {w_max!r}, but it must be above 0")
    if not len(group):
        return np.zeros(0)
    cell = group * (mode.max() + 1) + mode  # one number for each pair of group and mode
    counts = np.bincount(cell)
    size = np.bincount(group)
    present = np.bincount(np.flatnonzero(counts) // (mode.max() + 1), minlength=len(size))  # K of each group
    with np.errstate(over="ignore"):  # a steep alpha overflows into the bound
        raw: Floats = np.minimum((size[group] / (present[group] * counts[cell])) ** alpha, w_max)
    normaliser: Floats = size / np.bincount(group, raw)
    return raw * normaliser[group]


def _mean(values: Floats, weight: Floats, group: Indices) -> Floats:
    """The weighted mean of each episode's group, (N,)."""
    means: Floats = np.bincount(group, weight * values) / np.bincount(group, weight)
    return means[group]


def _divide(values: Floats, by: Floats) -> Floats:
    """`values / by`, where nothing stays nothing, also with `eps = 0`."""
    quotient: Floats = np.divide(values, by, out=np.zeros_like(values), where=values != 0)
    return quotient


def _scale(scale_rewards: Scale) -> str:
    if isinstance(scale_rewards, bool):
        return "group" if scale_rewards else "none"
    if scale_rewards not in ("group", "batch", "none"):
        raise ValueError(f"scale_rewards is {scale_rewards!r}, but it must be 'group', 'batch' or 'none'")
    return scale_rewards


def _numbers(rewards: Any) -> Floats:
    try:
        # A tensor by its own methods, so that torch is not imported for arrays.
        host = rewards.detach().cpu().double() if hasattr(rewards, "detach") else rewards
        array = np.asarray(host, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("rewards must be numbers") from None
    if array.ndim != 1:
        raise ValueError(f"rewards have the shape {array.shape}, but one dimension is needed")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(
            f"reward {first} is {array[first]}: leave out episodes without a reward, then weigh the others"
        )
    return array


def _labels(values: Any, name: str) -> Indices:
    """(N,) labels as indices from 0."""
    array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if array.ndim != 1:
        raise ValueError(f"{name} have the shape {array.shape}, but one dimension is needed")
    return np.unique(array, return_inverse=True)[1]


def _same_length(**arrays: npt.NDArray[Any]) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ValueError(f"there are {lengths}, but each episode needs one of each")


def _as(rewards: Any, advantage: Floats) -> Any:
    if hasattr(rewards, "new_tensor"):
        import torch

        floating = rewards.dtype if rewards.is_floating_point() else torch.float64
        return torch.from_numpy(advantage).to(device=rewards.device, dtype=floating)
    given = np.asarray(rewards).dtype
    return advantage.astype(given) if np.issubdtype(given, np.floating) else advantage
