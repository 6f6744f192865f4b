"""Simulated outcomes: the success probability of each mode on each prompt.

A prompt's success probabilities are those of its kind plus a difficulty of the prompt, whose mean is zero.
Outcomes use common random numbers: with the same seed, all methods get the same prompts and the same random
numbers.
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
    """Mean success probability by mode, and the maximum deviation of a prompt from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consult: float = Field(ge=0, le=1)
    direct: float = Field(ge=0, le=1)
    consult_spread: float = Field(default=0.0, ge=0)
    direct_spread: float = Field(default=0.0, ge=0)

    @property
    def gain(self) -> float:
        """D: the gain of consulting over answering directly."""
        return self.consult - self.direct


def prompt_chances(prompts: Sequence[Prompt], table: dict[str, ModeChances]) -> Floats:
    """Returns (N, 2) the success probability of each prompt: directly (0) and after consulting (1)."""
    return np.array([_chances(prompt, table[prompt.kind]) for prompt in prompts])


def _chances(prompt: Prompt, mean: ModeChances) -> tuple[float, float]:
    digest = hashlib.sha256(prompt.id.encode()).digest()
    direct, consult = (int.from_bytes(half, "big") / 2**32 * 2 - 1 for half in (digest[:4], digest[4:8]))
    return (
        min(1.0, max(0.0, mean.direct + mean.direct_spread * direct)),
        min(1.0, max(0.0, mean.consult + mean.consult_spread * consult)),
    )


def random_numbers(seed: int, update: int, index: int, group: int) -> Floats:
    """Returns (G, 3) uniform numbers for a group: for the mode, token and outcome of each episode."""
    numbers: Floats = np.random.default_rng([seed, update, index]).random((group, 3))
    return numbers
