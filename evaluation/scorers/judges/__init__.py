"""Judges of harm: one adapter for each output format, asked over any OpenAI-compatible endpoint.

What a judge says in another form than its own is *unjudged*, never safe.
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
