"""Detects refusals offline."""

from evaluation.scorers.refusal.detector import (
    NO_ANSWER,
    REFUSAL_VERSION,
    UNREADABLE,
    RefusalLabel,
    RefusalVerdict,
    detect_refusal,
    refusal_features,
)
from evaluation.scorers.refusal.evidence import Evidence, collect
from evaluation.scorers.refusal.linear_model import WEIGHTS, RefusalModel

__all__ = [
    "NO_ANSWER",
    "REFUSAL_VERSION",
    "UNREADABLE",
    "WEIGHTS",
    "Evidence",
    "RefusalLabel",
    "RefusalModel",
    "RefusalVerdict",
    "collect",
    "detect_refusal",
    "refusal_features",
]
