"""Stratified groups: some episodes of a group are forced into a mode, so that a rare one is heard at all.

Of a group's G episodes `free` choose for themselves; the others are made to consult or to answer directly,
with the very same prompt and tools. No re-weighting mends a group in which a mode is absent: this does. Every
decision in such a group, forced or free, is as likely as the mixture

    q(m) = (free / G) pi(m|x) + forced_m / G

makes it, so the decision's tokens, and thoughts that led to it, carry the ratio `rho_m = pi(m|x) / q(m)`,
which stays at or below `G / free`. What is written after the decision was sampled by the policy and carries
the ratio 1.
This is our addition; the paper's abstract (arXiv 2602.13562) samples freely.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.ifpo.arrays import like_input, same_length, to_floats, to_labels


def decision_ratios(probability: Any, modes: Any, forced: Any, groups: Any) -> Any:
    """The ratio `rho = pi(m|x) / q(m)` of each episode's decision.

    Args:
        probability: (N,) `pi(m|x)`: how likely the unforced policy was to take the mode that the episode has,
            numpy or torch, each in [0, 1].
        modes: (N,) what each episode did.
        forced: (N,) true where the mode was not the policy's own choice.
        groups: (N,) which group each episode belongs to.

    Returns:
        (N,) as `probability`, each from 0 to `G / free` of its group; 1 where nothing is forced.

    Raises:
        ValueError: unequal lengths, or a probability outside [0, 1].
    """
    chance = to_floats(probability, "probability")
    mode, group = to_labels(modes, "modes"), to_labels(groups, "groups")
    made = to_floats(forced, "forced")
    same_length(probability=chance, modes=mode, forced=made, groups=group)
    if ((chance < 0) | (chance > 1)).any():
        raise ValueError("a probability lies outside 0 to 1")
    if ((made != 0) & (made != 1)).any():
        raise ValueError("forced must be true or false for each episode")
    cell = group * (mode.max(initial=0) + 1) + mode
    size = np.bincount(group)[group]
    free = size - np.bincount(group, made)[group]
    forced_here = np.bincount(cell, made)[cell]
    mixture = free * chance + forced_here  # G q(m)
    # A mode that nothing forces is drawn from the policy alone: its ratio is G / free however rare it is.
    unforced = np.divide(size, free, out=np.zeros_like(chance), where=free > 0)
    ratio = np.divide(size * chance, mixture, out=unforced, where=forced_here > 0)
    return like_input(probability, ratio)
