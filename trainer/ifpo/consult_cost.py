"""Cost per consultation: the obvious baseline to compare IFPO with, on the same code path.

It penalises every consultation equally, including those that are needed: a real model trained with it
unlearned consulting on harmful prompts. It is off by default (`cost = 0`). `where="direct_as_good"` charges
only where consulting did not pay: in groups whose direct episodes were rewarded at least as well.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from trainer.ifpo.arrays import like_input, same_length, to_floats, to_labels

CostWhere = Literal["always", "direct_as_good"]


def with_consultation_cost(
    rewards: Any, consultations: Any, cost: float, *, groups: Any = None, where: CostWhere = "always"
) -> Any:
    """Subtracts `cost` per consultation from the rewards.

    Args:
        rewards: (N,) numbers, numpy or torch.
        consultations: (N,) number of consultations of each episode; true counts as one.
        cost: reward subtracted per consultation, at least 0.
        groups: (N,) group of each episode; `direct_as_good` needs them.
        where: `always`, or `direct_as_good`: only in groups that contain both modes and whose direct episodes
            have at least the mean reward of the consulting ones.

    Returns:
        (N,) like `rewards`.

    Raises:
        ValueError: unequal lengths, values that are not finite, a cost below 0, or missing groups.
    """
    if not cost >= 0:
        raise ValueError(f"cost is {cost!r}, but it must be at least 0")
    if where not in ("always", "direct_as_good"):
        raise ValueError(f"where is {where!r}, but it must be 'always' or 'direct_as_good'")
    reward, count = to_floats(rewards, "rewards"), to_floats(consultations, "consultations")
    same_length(rewards=reward, consultations=count)
    if where == "direct_as_good":
        if groups is None:
            raise ValueError("where is 'direct_as_good', so each episode needs a group: pass groups")
        group = to_labels(groups, "groups")
        same_length(rewards=reward, groups=group)
        count = count * _direct_as_good(reward, count > 0, group)
    return like_input(rewards, reward - cost * count)


def _direct_as_good(reward: Any, consulted: Any, group: Any) -> Any:
    """(N,) whether the direct episodes of each group were rewarded as well as the consulting ones."""
    size, consulting = np.bincount(group), np.bincount(group, consulted)
    total, earned = np.bincount(group, reward), np.bincount(group, reward * consulted)
    direct = size - consulting
    # Means are compared by their products, so that equal means of unequal numbers are equal.
    as_good = (total - earned) * consulting >= earned * direct - 1e-9 * size
    return (as_good & (consulting > 0) & (direct > 0))[group]
