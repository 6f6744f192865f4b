"""Name of the caller whose request is being handled, for logs."""

from __future__ import annotations

from contextvars import ContextVar

LOCAL_CALLER = "local"
"""Caller on loopback without a token, or over stdio."""
CURRENT_CALLER: ContextVar[str] = ContextVar("caller", default=LOCAL_CALLER)
"""Caller of the current request. The request middleware sets it after authentication."""
