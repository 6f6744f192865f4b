"""A price on consulting: the obvious rival of IFPO, on the same code path.

It pays for every consultation alike, also where one is needed: on a real model it unlearned consulting on
harmful prompts. It is here to be compared with, and is off (`cost = 0`) unless asked for.
"""

from __future__ import annotations

from typing import Any

from trainer.ifpo.arrays import like_input, same_length, to_floats


def with_consultation_cost(rewards: Any, consultations: Any, cost: float) -> Any:
    """Rewards less `cost` for each consultation.

    Args:
        rewards: (N,) numbers, numpy or torch.
        consultations: (N,) how many times each episode consulted; true counts as once.
        cost: of one consultation, in units of reward, at least 0.

    Returns:
        (N,) as `rewards`.

    Raises:
        ValueError: unequal lengths, or a cost below 0.
    """
    if not cost >= 0:
        raise ValueError(f"cost is {cost!r}, but it must be at least 0")
    reward, times = to_floats(rewards, "rewards"), to_floats(consultations, "consultations")
    same_length(rewards=reward, consultations=times)
    return like_input(rewards, reward - cost * times)
