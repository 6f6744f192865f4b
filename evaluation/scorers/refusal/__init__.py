"""Detects refusals offline."""

from evaluation.scorers.refusal.detector import (
    REFUSAL_VERSION,
    RefusalLabel,
    RefusalVerdict,
    detect_refusal,
    refusal_features,
)
from evaluation.scorers.refusal.style_model import WEIGHTS, RefusalModel

__all__ = [
    "REFUSAL_VERSION",
    "RefusalLabel",
    "RefusalModel",
    "RefusalVerdict",
    "WEIGHTS",
    "detect_refusal",
    "refusal_features",
]
