"""The agent: a model that decides for each prompt whether to consult the safety rules before it answers.

A name is loaded on first use, so importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.endpoint import Endpoint, RetryPolicy
    from agent.episode import (
        Consultation,
        Episode,
        EpisodeLog,
        ErrorRecord,
        Event,
        Limits,
        LogReading,
        RuleHit,
        SkippedLine,
        Turn,
        iter_log,
        read_log,
    )
    from agent.errors import AgentError, EndpointError, LogError, PromptError, RulesError
    from agent.rollout import Agent
    from agent.rollout.system_prompt import system_prompt
    from agent.tools import ConsultResult, CustomTool, OwnTool, RulesClient

_HOME = {
    "Agent": "agent.rollout.agent",
    "AgentError": "agent.errors",
    "ConsultResult": "agent.tools.rules_client",
    "Consultation": "agent.episode.schema",
    "CustomTool": "agent.tools.custom_tools",
    "Endpoint": "agent.endpoint.client",
    "EndpointError": "agent.errors",
    "Episode": "agent.episode.schema",
    "EpisodeLog": "agent.episode.log",
    "ErrorRecord": "agent.episode.schema",
    "Event": "agent.episode.schema",
    "Limits": "agent.episode.schema",
    "LogError": "agent.errors",
    "LogReading": "agent.episode.log",
    "OwnTool": "agent.tools.custom_tools",
    "PromptError": "agent.errors",
    "RetryPolicy": "agent.endpoint.client",
    "RuleHit": "agent.episode.schema",
    "RulesClient": "agent.tools.rules_client",
    "RulesError": "agent.errors",
    "SkippedLine": "agent.episode.log",
    "Turn": "agent.episode.schema",
    "iter_log": "agent.episode.log",
    "read_log": "agent.episode.log",
    "system_prompt": "agent.rollout.system_prompt",
}

__all__ = [
    "Agent",
    "AgentError",
    "ConsultResult",
    "Consultation",
    "CustomTool",
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
    "SkippedLine",
    "Turn",
    "iter_log",
    "read_log",
    "system_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
