"""Judges of harm: one adapter per output format, for any OpenAI-compatible endpoint.

A reply that is not in the judge's format makes the episode *unjudged*, never safe.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Judge": "base",
    "MalformedError": "base",
    "Reading": "base",
    "JUDGES": "registry",
    "make_judge": "registry",
    "JudgeOptions": "options",
    "Judgement": "judgement",
    "JudgementError": "judgement",
    "read_judgements": "judgement",
    "write_judgements": "judgement",
    "judge_log": "runner",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
