"""Errors of the agent, one class for each boundary that can fail.

AgentError
├── EndpointError   the model's endpoint
├── RulesError      the rule service
├── GatewayError    the gateway's own settings
├── LogError        the episode log or its journal
├── ExportError     a log in another format
└── PromptError     the prompts of a run
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """Base class. The message is one sentence that a user can act on.

    `type` is a short stable identifier of the fault. `setup` means that an address, a key or a name is wrong,
    so every other prompt would fail in the same way.
    """

    boundary: ClassVar[str] = "agent"

    def __init__(self, message: str, *, type: str = "error", setup: bool = False) -> None:
        super().__init__(message)
        self.type = type
        self.setup = setup


class EndpointError(AgentError):
    """The endpoint returned no usable reply."""

    boundary = "endpoint"


class RulesError(AgentError):
    """The rule service could not be queried."""

    boundary = "rules"


class GatewayError(AgentError):
    """The gateway cannot start."""

    boundary = "gateway"


class LogError(AgentError):
    """The log cannot be read, written or continued."""

    boundary = "log"


class PromptError(AgentError):
    """The prompts, or the settings that apply to them, cannot be used."""

    boundary = "prompts"


class ExportError(AgentError):
    """The log cannot be exported to the requested format."""

    boundary = "export"
