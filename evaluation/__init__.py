"""Evaluation: prompts, refusal detection, rewards, metrics and reports over logged episodes."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Prompt": "prompts.schema",
    "PromptError": "errors",
    "load_prompts": "prompts.loader",
    "detect_refusal": "scorers.refusal.detector",
    "Judgement": "scorers.judges.judgement",
    "read_judgements": "scorers.judges.judgement",
    "is_right": "scorers.answers.exact",
    "Reward": "scorers.rewards",
    "RewardError": "errors",
    "Weights": "scorers.rewards",
    "score_episode": "scorers.rewards",
    "read_rewards": "scorers.rewards",
    "write_rewards": "scorers.rewards",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
