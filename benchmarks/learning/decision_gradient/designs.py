"""Groups of each design, drawn from the sampled episodes of a prompt, and the gradient of their decisions.

An episode that is forced into a mode follows the policy's own distribution given the mode. A group is
therefore drawn in two steps: the number of consultations, which is binomial, or fixed in a group with strata;
then an episode of each mode for every place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.ifpo import decision_ratios, ifpo_advantages

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """How the modes of a group are chosen, and how strongly the advantages are weighted."""

    alpha: float
    consult: int = 0
    """Number of episodes that are forced to consult."""
    direct: int = 0


SIZE = 8
"""Episodes of a group, as in `ascl-train online` by default."""
DESIGNS = {
    "GRPO": Design(0.0),
    "IFPO": Design(1.0),
    "GRPO, strata 3 + 3": Design(0.0, 3, 3),
    "IFPO, strata 3 + 3": Design(1.0, 3, 3),
    "IFPO, strata 4 + 4": Design(1.0, 4, 4),
}
"""With 4 + 4 no weight differs from 1, so GRPO and IFPO are the same. `ascl-train online` needs a free
episode, so there 4 + 4 is a limit."""


@dataclass(frozen=True)
class PromptPool:
    """The episodes of a prompt: rewards by mode (NaN: none), and the probability that the policy consults."""

    probability: float
    consult: Floats
    direct: Floats

    def __post_init__(self) -> None:
        if not len(self.consult) or not len(self.direct):
            raise ValueError("a prompt needs episodes of both modes")


@dataclass(frozen=True)
class Groups:
    """S groups of `SIZE` episodes of one prompt."""

    consults: npt.NDArray[np.bool_]
    """(S, G) whether each episode consulted."""
    episode: Indices
    """(S, G) index within the prompt's episodes of that mode."""
    rewards: Floats
    """(S, G); NaN: no reward, so the episode is not in its group."""
    coefficients: Floats
    """(S, G) `rho_i A_i / G`: the factor of the gradient of each decision's log-probability."""
    rest: Floats
    """(S, G) `A_i / G`: the factor of the log-probabilities of the tokens after it."""

    def logit_gradients(self, probability: float) -> Floats:
        """Returns (S,) the gradient of each group's objective in the log-odds of consulting."""
        slopes = np.where(self.consults, 1 - probability, -probability)
        total: Floats = (self.coefficients * slopes).sum(1)
        return total


def draw_groups(pool: PromptPool, design: Design, count: int, random: np.random.Generator) -> Groups:
    """Draws `count` groups; a group repeats an episode only if there are too few of its mode."""
    free = SIZE - design.consult - design.direct
    forced = np.tile([True] * design.consult + [False] * design.direct, (count, 1)).astype(bool)
    consults = np.concatenate([forced, random.random((count, free)) < pool.probability], 1)
    orders = [
        random.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
        for size in (len(pool.direct), len(pool.consult))
    ]
    places = np.where(consults, consults.cumsum(1), (~consults).cumsum(1)) - 1
    episode = np.where(
        consults,
        np.take_along_axis(orders[1], places % len(pool.consult), 1),
        np.take_along_axis(orders[0], places % len(pool.direct), 1),
    )
    return weigh(pool, design, consults, episode)


def weigh(pool: PromptPool, design: Design, consults: npt.NDArray[np.bool_], episode: Indices) -> Groups:
    """Computes the advantages and ratios of groups, with the functions of the trainer."""
    rewards = np.where(
        consults,
        pool.consult[np.minimum(episode, len(pool.consult) - 1)],
        pool.direct[np.minimum(episode, len(pool.direct) - 1)],
    )
    rated = np.isfinite(rewards).ravel()
    group = np.repeat(np.arange(len(consults)), SIZE)[rated]
    mode = consults.ravel()[rated]
    is_forced = np.zeros(consults.shape)
    is_forced[:, : design.consult + design.direct] = 1.0
    advantage, ratio = np.zeros(rewards.size), np.ones(rewards.size)
    if rated.any():
        advantage[rated] = ifpo_advantages(rewards.ravel()[rated], mode, group, alpha=design.alpha)
        own = np.where(mode, pool.probability, 1 - pool.probability)
        ratio[rated] = decision_ratios(own, mode, is_forced.ravel()[rated], group)
    rest = advantage.reshape(rewards.shape) / SIZE
    return Groups(consults, episode, rewards, ratio.reshape(rewards.shape) * rest, rest)


def no_signal(groups: Groups) -> Floats:
    """Returns (S,) 1.0 where no decision of a group has an advantage."""
    return np.asarray(np.abs(groups.coefficients).sum(1) == 0, dtype=np.float64)


def one_mode(groups: Groups) -> Floats:
    """Returns (S,) 1.0 where all rated episodes of a group have one mode."""
    rated = np.isfinite(groups.rewards)
    share = (groups.consults & rated).sum(1) / np.maximum(rated.sum(1), 1)
    return np.asarray((share == 0) | (share == 1), dtype=np.float64)


def updates_needed(signal_to_noise: float) -> float:
    """Returns the number of draws that detect the sign of a mean at the 95 % level with 80 % power."""
    return float("inf") if signal_to_noise == 0 else ((1.96 + 0.84) / signal_to_noise) ** 2


def groups_for_sign(signal_to_noise: float) -> float:
    """Returns the number of draws whose mean is positive with a probability of 95 %.

    Infinite if the expected mean is not positive.
    """
    return float("inf") if signal_to_noise <= 0 else (1.645 / signal_to_noise) ** 2
