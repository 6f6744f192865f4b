"""Runs one prompt as a state machine, or many prompts into one log.

A name is loaded on first use: reading prompt files needs no asyncio and no progress bars.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.rollout.agent import Agent
    from agent.rollout.batch import RunSummary, check_log_settings, run_prompts
    from agent.rollout.context import RolloutContext
    from agent.rollout.conversation import Conversation
    from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS, ModeShare, parse_mode_shares
    from agent.rollout.progress import ProgressView
    from agent.rollout.prompts import Prompt, read_prompts

_HOME = {
    "Agent": "agent",
    "Conversation": "conversation",
    "DEFAULT_DIRECT_DRAWS": "forced_modes",
    "ModeShare": "forced_modes",
    "ProgressView": "progress",
    "Prompt": "prompts",
    "RolloutContext": "context",
    "RunSummary": "batch",
    "check_log_settings": "batch",
    "parse_mode_shares": "forced_modes",
    "read_prompts": "prompts",
    "run_prompts": "batch",
}
__all__ = [
    "Agent",
    "Conversation",
    "DEFAULT_DIRECT_DRAWS",
    "ModeShare",
    "ProgressView",
    "Prompt",
    "RolloutContext",
    "RunSummary",
    "check_log_settings",
    "parse_mode_shares",
    "read_prompts",
    "run_prompts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
