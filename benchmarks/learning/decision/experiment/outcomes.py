"""What the simulated outcomes are: how likely each mode is to earn the reward of 1 on each prompt.

A prompt's chances are those of its kind plus a difficulty of its own, whose mean is zero. Outcomes are drawn
with common random numbers: the same seed gives every method the same prompts, and each visit to a prompt the
same luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from evaluation.prompts import Prompt

Floats = npt.NDArray[np.float64]


class ModeChances(BaseModel):
    """Mean chance of success by mode, and how far a prompt's own may lie from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consult: float = Field(ge=0, le=1)
    direct: float = Field(ge=0, le=1)
    consult_spread: float = Field(default=0.0, ge=0)
    direct_spread: float = Field(default=0.0, ge=0)

    @property
    def gain(self) -> float:
        """D: what consulting earns above answering directly."""
        return self.consult - self.direct


def prompt_chances(prompts: Sequence[Prompt], table: dict[str, ModeChances]) -> Floats:
    """(N, 2) chance of success of each prompt by its kind: answered directly (0), after consulting (1)."""
    return np.array([_chances(prompt, table[prompt.kind]) for prompt in prompts])


def _chances(prompt: Prompt, mean: ModeChances) -> tuple[float, float]:
    digest = hashlib.sha256(prompt.id.encode()).digest()
    direct, consult = (int.from_bytes(part, "big") / 2**32 * 2 - 1 for part in (digest[:4], digest[4:8]))
    return (
        min(1.0, max(0.0, mean.direct + mean.direct_spread * direct)),
        min(1.0, max(0.0, mean.consult + mean.consult_spread * consult)),
    )


def random_numbers(seed: int, update: int, place: int, group: int) -> Floats:
    """(G, 3) uniform numbers of one visit to a prompt: for each episode's mode, token and outcome."""
    drawn: Floats = np.random.default_rng([seed, update, place]).random((group, 3))
    return drawn
