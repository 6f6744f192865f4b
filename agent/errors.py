"""What can go wrong outside the model, named by the boundary that broke.

AgentError
├── EndpointError   the model's endpoint
├── RulesError      the rule service
├── GatewayError    the gateway's own settings
├── LogError        the episode log or its journal
├── ExportError     a log in another form
└── PromptError     the file of prompts
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """Base of all; its text is one sentence that a user can act on.

    `type` is a short stable word for the kind of fault. `setup` means that an address, key or name is at
    fault, so that every other prompt would fail the same way.
    """

    boundary: ClassVar[str] = "agent"

    def __init__(self, message: str, *, type: str = "error", setup: bool = False) -> None:
        super().__init__(message)
        self.type = type
        self.setup = setup


class EndpointError(AgentError):
    """The endpoint gave no usable answer."""

    boundary = "endpoint"


class RulesError(AgentError):
    """The rule service could not be asked."""

    boundary = "rules"


class GatewayError(AgentError):
    """The gateway cannot start."""

    boundary = "gateway"


class LogError(AgentError):
    """The log cannot be read, written or continued."""

    boundary = "log"


class PromptError(AgentError):
    """The prompts cannot be read."""

    boundary = "prompts"


class ExportError(AgentError):
    """The log cannot be had in the form asked for."""

    boundary = "export"
