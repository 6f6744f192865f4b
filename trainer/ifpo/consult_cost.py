"""Cost per consultation: the obvious baseline to compare IFPO with, on the same code path.

It penalises every consultation equally, including those that are needed: a real model trained with it
unlearned consulting on harmful prompts. It is off by default (`cost = 0`).
"""

from __future__ import annotations

from typing import Any

from trainer.ifpo.arrays import like_input, same_length, to_floats


def with_consultation_cost(rewards: Any, consultations: Any, cost: float) -> Any:
    """Subtracts `cost` per consultation from the rewards.

    Args:
        rewards: (N,) numbers, numpy or torch.
        consultations: (N,) number of consultations of each episode; true counts as one.
        cost: reward subtracted per consultation, at least 0.

    Returns:
        (N,) like `rewards`.

    Raises:
        ValueError: unequal lengths, values that are not finite, or a cost below 0.
    """
    if not cost >= 0:
        raise ValueError(f"cost is {cost!r}, but it must be at least 0")
    reward, count = to_floats(rewards, "rewards"), to_floats(consultations, "consultations")
    same_length(rewards=reward, consultations=count)
    return like_input(rewards, reward - cost * count)
