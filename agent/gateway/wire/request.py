"""What a caller asked for, and whether the rule tool can be offered with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.episode import text_digest

Tool = dict[str, Any]


@dataclass(frozen=True)
class CallerRequest:
    """One request of a caller, as it came."""

    raw: bytes
    body: dict[str, Any]
    headers: Mapping[str, str]
    """What goes to the upstream with every turn; the caller's key is in here and nowhere else."""
    query: str = ""

    @property
    def streams(self) -> bool:
        """Whether the caller wants events."""
        return self.body.get("stream") is True

    @property
    def caller(self) -> str:
        """A digest that tells callers apart without giving their key away."""
        return text_digest(
            "\n".join(self.headers.get(n, "") for n in ("authorization", "api-key", "x-api-key"))
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.raw).hexdigest()


def tool_names(tools: Any) -> list[str]:
    """Names of the caller's tools."""
    found = []
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else None
        inner = tool.get(kind) if isinstance(kind, str) else None
        name = (inner if isinstance(inner, dict) else tool if isinstance(tool, dict) else {}).get("name")
        found += [name] if isinstance(name, str) else []
    return found


def reason_not_offered(body: Mapping[str, Any]) -> str | None:
    """Why a Chat Completions request is passed on without the rule tool; None when it can be offered."""
    if not isinstance(body.get("messages"), list):
        return "no messages"
    if body.get("tool_choice") == "none":
        return "tool_choice is none"
    if body.get("functions"):
        return "functions are used in place of tools"
    if isinstance(body.get("n"), int) and body["n"] > 1:
        return "n is more than 1"
    return reason_tools_unusable(body)


def reason_tools_unusable(body: Mapping[str, Any]) -> str | None:
    """Why a tool cannot be put beside those of a request, in either API; None when it can."""
    if not isinstance(body.get("tools"), list | None):
        return "tools are no list"
    choice = body.get("tool_choice")
    if choice not in (None, "auto") and not body.get("tools"):
        return "tool_choice without tools"
    allowed = choice.get("allowed_tools", choice) if isinstance(choice, dict) else None
    if isinstance(allowed, dict) and not isinstance(allowed.get("tools"), list | None):
        return "allowed tools are no list"
    return None


def with_tool(body: dict[str, Any], tool: Tool) -> dict[str, Any]:
    """The same request with one more tool, last, so that what stands before it can be cached."""
    changed = {**body, "tools": [*(body.get("tools") or []), tool]}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and isinstance(allowed := choice.get("allowed_tools"), dict):
        name = {"type": "function", "function": {"name": tool["function"]["name"]}}
        allowed = {**allowed, "tools": [*(allowed.get("tools") or []), name]}
        changed["tool_choice"] = {**choice, "allowed_tools": allowed}
    return changed
