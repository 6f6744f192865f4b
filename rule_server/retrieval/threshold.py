"""The score threshold below which no rule applies: its value, origin and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rule_server.retrieval.background import background_digest
from rule_server.retrieval.relevance.model import relevance_model
from rule_server.retrieval.relevance.ranking import ranking_model

DEFAULT_THRESHOLD = 0.5
"""For an uncalibrated rulebook. Scores are scaled so that this is the recommended threshold: see
docs/research/retrieval-log.md."""
SCORING_VERSION = 2
"""Increment it when the same vectors get other scores: older calibrations then no longer count."""

Origin = Literal["set", "rulebook", "calibrated", "stale", "default"]


@dataclass(frozen=True)
class Calibration:
    """A measured threshold. The artefact stores it beside the vectors that it was measured with."""

    threshold: float
    rule: str
    """The criterion by which it was chosen, in a sentence."""
    rulebook: str
    """Digest of the measured rulebook."""
    scoring: str
    """Version of the scoring: see `scoring_version`."""
    prompts: int
    nothing: dict[str, float]
    """Share of the prompts of each kind that find nothing at the threshold."""


@dataclass(frozen=True)
class Threshold:
    """The current threshold and its origin."""

    value: float
    origin: Origin

    @property
    def note(self) -> str:
        """The origin in words."""
        return {
            "set": "set by hand",
            "rulebook": "set in rulebook.yaml",
            "calibrated": "calibrated",
            "stale": "calibrated before the last edit of the rules: run `ascl-rules calibrate` again",
            "default": "the default: `ascl-rules calibrate` finds one for this rulebook",
        }[self.origin]


def scoring_version() -> str:
    """Returns a string that changes when the same rulebook and encoder may give other scores."""
    learned = f"{relevance_model().digest[:12]}-{ranking_model().digest[:12]}"
    return f"{SCORING_VERSION}-{background_digest()[:12]}-{learned}"
