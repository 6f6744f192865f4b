"""Decisions to consult as numbers: the log-odds of each prompt's opening token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
HARMFUL = "harmful"


@dataclass(frozen=True)
class OpeningToken:
    """The token that opens a call of the rule tool, and no other reply."""

    text: str
    id: int | None
    """None if it is read from a log without token ids."""
    special: bool | None
    """Whether the tokenizer never produces it from plain text; None if unknown."""


@dataclass(frozen=True)
class Decision:
    """The first decision in reply to one prompt."""

    prompt_id: str
    kind: str
    margin: float
    """Log-odds of the opening token at the sampling temperature; at temperature 0, its logit minus the
    largest other one."""
    rest: float = 1.0
    """Probability that an opened call is a call of the rule tool."""


@dataclass(frozen=True)
class Decisions:
    """Decisions of one policy, all at the same temperature."""

    token: OpeningToken
    temperature: float
    decisions: list[Decision]
    bounded: int = 0
    """Number of decisions whose probability is an upper bound."""

    @property
    def kinds(self) -> list[str]:
        """The kinds of the prompts, harmful ones first."""
        return sorted({each.kind for each in self.decisions}, key=lambda kind: (kind != HARMFUL, kind))

    def of_kind(self, kind: str) -> list[Decision]:
        """Returns the decisions for the prompts of a kind."""
        return [each for each in self.decisions if each.kind == kind]

    def rates(self, kind: str, offsets: FloatArray) -> FloatArray:
        """Returns the probability of consulting, (N, O), for each prompt of a kind and each offset."""
        chosen = self.of_kind(kind)
        margins = np.array([each.margin for each in chosen])[:, None]
        rest = np.array([each.rest for each in chosen])[:, None]
        if self.temperature == 0:
            return np.asarray((margins + offsets > 0) * rest, dtype=np.float64)
        from scipy.special import expit

        return np.asarray(expit(margins + offsets / self.temperature) * rest, dtype=np.float64)
