"""Detects refusals offline.

The detector is loaded on first use: compiling its patterns takes half a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evaluation.scorers.refusal.verdict import (
    NO_ANSWER,
    REFUSAL_VERSION,
    UNREADABLE,
    RefusalLabel,
    RefusalVerdict,
)

if TYPE_CHECKING:
    from evaluation.scorers.refusal.detector import detect_refusal, refusal_features
    from evaluation.scorers.refusal.evidence import Evidence, collect
    from evaluation.scorers.refusal.model import (
        NGRAM_RECIPE,
        NGRAM_WEIGHTS,
        WEIGHTS,
        NgramModel,
        RefusalModel,
    )

_HOME = {
    "NGRAM_RECIPE": "model",
    "NGRAM_WEIGHTS": "model",
    "WEIGHTS": "model",
    "Evidence": "evidence",
    "NgramModel": "model",
    "RefusalModel": "model",
    "collect": "evidence",
    "detect_refusal": "detector",
    "refusal_features": "detector",
}
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
