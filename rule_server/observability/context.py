"""TODO: docstring."""

from __future__ import annotations

from contextvars import ContextVar

from rule_server.api.auth import LOCAL, Principal

CURRENT_CALLER: ContextVar[Principal] = ContextVar("caller", default=LOCAL)
"""Who asks, wherever a consultation is being answered."""
