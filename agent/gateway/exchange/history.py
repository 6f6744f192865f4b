"""Digests of a conversation's history, which identify the reply that followed it.

A digest covers everything that precedes a reply: the caller's identity, and every message or item with its
role, texts, calls and results. Fields that libraries change when they send a message back, such as ids of
items, status and reasoning, do not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.episode import digest_of

_FIELDS = ("role", "name", "tool_call_id", "call_id", "summary", "input", "action")
_IDENTITY = ("user", "safety_identifier")
_CONTEXT = ("instructions", "prompt", "previous_response_id", "conversation")

CallSignature = tuple[str | None, Any, str]
"""Id (None if the upstream gave none), name and canonical arguments of a call."""


def identity_digest(caller: str, body: Mapping[str, Any]) -> str:
    """Returns a digest of the caller's identity: its key, and the user that the request names."""
    return digest_of([caller, *(body.get(name) for name in _IDENTITY)])


def history_digests(caller: str, body: Mapping[str, Any], entries: list[Any]) -> list[str]:
    """Returns one digest for each prefix of the entries; the first one is of the empty prefix.

    Args:
        caller: digest of the caller's key.
        body: the request, whose fields such as `instructions` precede the entries.
        entries: messages or items as the caller sent them.
    """
    context = [body.get(name) for name in _CONTEXT]
    running = hashlib.sha256(f"{identity_digest(caller, body)} {digest_of(context)}".encode())
    digests = [running.hexdigest()]
    for entry in entries:
        running.update(digest_of(canonical_entry(entry)).encode())
        digests.append(running.hexdigest())
    return digests


def canonical_entry(entry: Any) -> Any:
    """Returns the parts of a message or an item that libraries send back unchanged."""
    if not isinstance(entry, dict):
        return entry
    kind = entry.get("type", "message")
    if kind == "item_reference":
        return {"type": kind, "id": entry.get("id")}
    result: dict[str, Any] = {"type": kind}
    result |= {name: entry[name] for name in _FIELDS if entry.get(name) not in (None, "", [])}
    for name in ("content", "output"):
        if content := _canonical_content(entry.get(name)):
            result[name] = content
    if "arguments" in entry:
        result["arguments"] = canonical_arguments(entry["arguments"])
    if calls := entry.get("tool_calls"):
        result["tool_calls"] = call_signatures(calls) if isinstance(calls, list) else calls
    return result


def _canonical_content(content: Any) -> Any:
    """Treats a list of text parts like their text."""
    if not isinstance(content, list):
        return content
    parts = [
        part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else part
        for part in content
    ]
    return "".join(parts) if all(isinstance(part, str) for part in parts) else parts


def canonical_arguments(arguments: Any) -> str:
    """Returns a call's arguments as canonical JSON, because libraries parse them and format them again."""
    value = arguments
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def call_signatures(calls: Iterable[Any]) -> list[CallSignature]:
    """Returns id, name and arguments of Chat Completions calls, of functions and custom tools."""
    signatures = []
    for call in calls:
        entry = call if isinstance(call, dict) else {}
        inner = entry.get("function", entry.get("custom"))
        inner = inner if isinstance(inner, dict) else {}
        arguments = inner.get("arguments", inner.get("input"))
        signatures.append((entry.get("id") or None, inner.get("name"), canonical_arguments(arguments)))
    return signatures


def same_calls(stored: list[CallSignature], sent_back: list[CallSignature]) -> bool:
    """Returns whether these are the same calls; a call without an id may get one from the caller."""
    return len(stored) == len(sent_back) and all(
        one[1:] == other[1:] and (one[0] is None or one[0] == other[0])
        for one, other in zip(stored, sent_back, strict=True)
    )


def message_text(message: Mapping[str, Any]) -> str:
    """Returns the text of a message; text parts are joined by line breaks."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
