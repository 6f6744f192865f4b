"""Stratified groups: some episodes of a group are forced into a mode, so that a rare mode occurs at all.

Of a group's G episodes, `free` choose their mode; the others are forced to consult or to answer directly,
with the same prompt and tools. No weighting can compensate for a mode that is absent from a group; forcing it
can. The probability of every decision in such a group, forced or free, is that of the mixture

    q(m) = (free / G) pi(m|x) + forced_m / G

so the decision's tokens, and the thoughts that led to it, carry the ratio `rho_m = pi(m|x) / q(m)`, which
never exceeds `G / free`. The policy sampled the tokens after the decision, so they carry the ratio 1. This is
an addition to IFPO; the paper's abstract (arXiv 2602.13562) does not mention forced modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.ifpo.arrays import like_input, same_length, to_floats, to_labels

MAX_DEVIATIONS = 4.0
"""Standard deviations by which the number of consulting free episodes may differ from the expected one."""
MAX_DIFFERENCE, MAX_FACTOR = 0.25, 5.0
"""Larger differences and ratios than these between measured and observed probability are errors."""
_MIN_VARIANCE = 0.3  # of a count: one or two unexpected episodes prove nothing


def decision_ratios(probability: Any, modes: Any, forced: Any, groups: Any) -> Any:
    """Computes the ratio `rho = pi(m|x) / q(m)` of each episode's decision.

    Args:
        probability: (N,) `pi(m|x)`: probability that the unforced policy takes the episode's mode, numpy or
            torch, each in [0, 1].
        modes: (N,) mode of each episode.
        forced: (N,) true where the mode was forced.
        groups: (N,) group of each episode.

    Returns:
        (N,) like `probability`, each from 0 to `G / free` of its group; 1 in a group without forced episodes.

    Raises:
        ValueError: unequal lengths, or a probability outside [0, 1].
    """
    policy = to_floats(probability, "probability")
    mode, group = to_labels(modes, "modes"), to_labels(groups, "groups")
    is_forced = to_floats(forced, "forced")
    same_length(probability=policy, modes=mode, forced=is_forced, groups=group)
    if ((policy < 0) | (policy > 1)).any():
        raise ValueError("a probability is outside 0 to 1")
    if ((is_forced != 0) & (is_forced != 1)).any():
        raise ValueError("forced must be true or false for each episode")
    cell = group * (mode.max(initial=0) + 1) + mode
    size = np.bincount(group)[group]
    free = size - np.bincount(group, is_forced)[group]
    forced_here = np.bincount(cell, is_forced)[cell]
    mixture = free * policy + forced_here  # G q(m)
    # Only the policy samples a mode that is never forced, so its ratio is G / free however rare it is.
    unforced = np.divide(size, free, out=np.zeros_like(policy), where=free > 0)
    ratio = np.divide(size * policy, mixture, out=unforced, where=forced_here > 0)
    return like_input(probability, ratio)


def token_advantages(decision: float, rest: float, ratio: float, end: int, length: int) -> list[float]:
    """Returns the (C,) advantages of an episode's tokens: `decision * ratio` up to the end of the decision,
    then `rest`.

    Thoughts before a decision are sampled together with it. In a stratified group, the thoughts that lead to
    a forced mode are over-represented as much as the mode is, so they carry its ratio too.

    Args:
        decision, rest: advantage of the decision, and of the tokens after it.
        ratio: result of `decision_ratios`; 1 outside a stratified group.
        end: number of tokens up to the end of the decision.
        length: C.
    """
    return [ratio * decision] * end + [rest] * (length - end)


def probabilities_disagree(probability: Sequence[float], consulted: Sequence[bool]) -> bool:
    """Returns whether probabilities of consulting do not explain how many free episodes consulted.

    They do not if chance does not explain the difference, and it is large: above `MAX_DIFFERENCE`, or above
    `MAX_FACTOR` for the rarer mode.

    Args:
        probability: (F,) probability of consulting, of the free episodes.
        consulted: (F,) whether they consulted.
    """
    if not len(probability):
        return False
    expected, observed, count = math.fsum(probability), sum(consulted), len(probability)
    variance = math.fsum(each * (1 - each) for each in probability)
    factor = max(
        max(first, second) / min(first, second)
        for first, second in (
            (expected + 0.5, observed + 0.5),
            (count - expected + 0.5, count - observed + 0.5),
        )
    )
    is_chance = abs(observed - expected) <= MAX_DEVIATIONS * math.sqrt(variance + _MIN_VARIANCE)
    return not (is_chance or (abs(observed - expected) <= MAX_DIFFERENCE * count and factor <= MAX_FACTOR))
