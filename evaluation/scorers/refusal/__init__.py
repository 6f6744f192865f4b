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
from evaluation.scorers.refusal.model import NGRAM_RECIPE, NGRAM_WEIGHTS, WEIGHTS, NgramModel, RefusalModel

__all__ = [
    "NGRAM_RECIPE",
    "NGRAM_WEIGHTS",
    "NO_ANSWER",
    "REFUSAL_VERSION",
    "UNREADABLE",
    "WEIGHTS",
    "Evidence",
    "NgramModel",
    "RefusalLabel",
    "RefusalModel",
    "RefusalVerdict",
    "collect",
    "detect_refusal",
    "refusal_features",
]
