"""TODO: docstring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rule_server.retrieval import background as ordinary

DEFAULT_THRESHOLD = 0.06
"""For a rulebook that was not calibrated. Chosen on our own rulebook: see docs/research/retrieval-log.md."""


Origin = Literal["set", "calibrated", "stale", "default"]


@dataclass(frozen=True)
class Calibration:
    """A measured threshold, as the artefact keeps it beside the vectors that it was measured with."""

    threshold: float
    rule: str
    """How it was chosen, in a sentence."""
    rulebook: str
    """Digest of the rulebook that was measured."""
    scoring: str
    """What the scores depend on beside the rulebook and the encoder: see `scoring_version`."""
    prompts: int
    nothing: dict[str, float]
    """Share of the prompts of each kind that find nothing at the threshold."""


@dataclass(frozen=True)
class Threshold:
    """The threshold in force and where it comes from."""

    value: float
    origin: Origin

    @property
    def note(self) -> str:
        """The origin in words."""
        return {
            "set": "set by hand",
            "calibrated": "calibrated",
            "stale": "calibrated before the last edit of the rules: run `ascl-rules calibrate` again",
            "default": "the default: `ascl-rules calibrate` finds one for this rulebook",
        }[self.origin]


def scoring_version() -> str:
    """Changes whenever the same rulebook and encoder may give other scores."""
    from rule_server.retrieval.threshold import SCORING

    return f"{SCORING}-{ordinary.background_digest()[:12]}"


SCORING = 1
"""Raise it when the same vectors get other scores: an older calibration then no longer counts."""
