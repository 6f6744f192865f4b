"""A caller's request, parsed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.episode import text_digest
from agent.gateway.wire.upstream import RawHeaders

Tool = dict[str, Any]


@dataclass(frozen=True)
class CallerRequest:
    """One request of a caller, unchanged."""

    raw: bytes
    body: dict[str, Any]
    headers: RawHeaders
    """Headers that the upstream receives with every turn. Only these hold the caller's key."""
    query: str = ""

    @property
    def streams(self) -> bool:
        """Whether the caller requested a stream of events."""
        return self.body.get("stream") is True

    @property
    def caller(self) -> str:
        """Digest of the caller's key, which distinguishes callers without revealing the key."""
        return text_digest(
            "\n".join(self.header(name) or "" for name in ("authorization", "api-key", "x-api-key"))
        )

    def header(self, name: str) -> str | None:
        """Returns the last value of a header; None if the caller sent none."""
        values = [value for key, value in self.headers if key == name.encode()]
        return values[-1].decode("latin-1") if values else None

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.raw).hexdigest()


def tool_names(tools: Any) -> list[str]:
    """Returns the names in a request's `tools`, in the form of either API."""
    names = []
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else None
        inner = tool.get(kind) if isinstance(kind, str) else None
        name = (inner if isinstance(inner, dict) else tool if isinstance(tool, dict) else {}).get("name")
        names += [name] if isinstance(name, str) else []
    return names


def only_named_tools(tools: Any) -> bool:
    """Returns whether `tool_names` are the only names that a call may have.

    Tools of other types, such as searches for more tools, let the model call names that the request lacks.
    """
    listed = tools if isinstance(tools, list) else []
    return all(isinstance(tool, dict) and tool.get("type") in ("function", "custom") for tool in listed)


def clean_name(name: str) -> str:
    """Returns a tool's name without the control tokens and the namespace that some servers leave in it."""
    return name.partition("<|")[0].strip().removeprefix("functions.")


def reason_tools_unusable(body: Mapping[str, Any]) -> str | None:
    """Returns the reason why no tool can be added to a request, in either API; None if one can be added."""
    if not isinstance(body.get("tools"), list | None):
        return "tools is not a list"
    choice = body.get("tool_choice")
    if choice not in (None, "auto") and not body.get("tools"):
        return "tool_choice without tools"
    allowed = choice.get("allowed_tools", choice) if isinstance(choice, dict) else None
    if isinstance(allowed, dict) and not isinstance(allowed.get("tools"), list | None):
        return "allowed tools is not a list"
    return None
