"""The agent: a model that decides, prompt by prompt, whether to consult the safety rules before it answers.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.endpoint import Endpoint, RetryPolicy
    from agent.episode import Consultation, Episode, ErrorRecord, Limits, RuleHit, Turn
    from agent.errors import AgentError, EndpointError, LogError, PromptError, RulesError
    from agent.events import Event
    from agent.log import EpisodeLog, LogReading, Skipped, iter_log, read_log
    from agent.loop import Agent
    from agent.own_tools import OwnTool
    from agent.prompt import system_prompt
    from agent.rules_client import ConsultResult, RulesClient

_HOME = {
    "Agent": "agent.loop",
    "AgentError": "agent.errors",
    "ConsultResult": "agent.rules_client",
    "Consultation": "agent.episode",
    "Endpoint": "agent.endpoint",
    "EndpointError": "agent.errors",
    "Episode": "agent.episode",
    "EpisodeLog": "agent.log",
    "ErrorRecord": "agent.episode",
    "Event": "agent.events",
    "Limits": "agent.episode",
    "LogError": "agent.errors",
    "LogReading": "agent.log",
    "OwnTool": "agent.own_tools",
    "PromptError": "agent.errors",
    "RetryPolicy": "agent.endpoint",
    "RuleHit": "agent.episode",
    "RulesClient": "agent.rules_client",
    "RulesError": "agent.errors",
    "Skipped": "agent.log",
    "Turn": "agent.episode",
    "iter_log": "agent.log",
    "read_log": "agent.log",
    "system_prompt": "agent.prompt",
}

__all__ = [
    "Agent",
    "AgentError",
    "ConsultResult",
    "Consultation",
    "Endpoint",
    "EndpointError",
    "Episode",
    "EpisodeLog",
    "ErrorRecord",
    "Event",
    "Limits",
    "LogError",
    "LogReading",
    "OwnTool",
    "PromptError",
    "RetryPolicy",
    "RuleHit",
    "RulesClient",
    "RulesError",
    "Skipped",
    "Turn",
    "iter_log",
    "read_log",
    "system_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
