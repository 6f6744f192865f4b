"""Evaluation: prompts, refusal detection, rewards, metrics and reports over logged episodes."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Prompt": "prompts",
    "PromptError": "prompts",
    "load_prompts": "prompts",
    "detect_refusal": "refusal",
    "Judgement": "judges.judgement",
    "read_judgements": "judges.judgement",
    "is_right": "answers",
    "Reward": "rewards",
    "RewardError": "rewards",
    "Weights": "rewards",
    "score_episode": "rewards",
    "read_rewards": "rewards",
    "write_rewards": "rewards",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
