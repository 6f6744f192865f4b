"""Server-sent events, split and formatted as bytes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

from agent.gateway.wire.upstream import UpstreamError

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n"
"""A comment without the empty line that ends an event, so that no client reads it as an event."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_MAX_EVENT_BYTES = 32 * 1024 * 1024


async def split_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields whole events, each with the empty line that ends it, and the unterminated rest last.

    Raises:
        UpstreamError: if an event is longer than 32 MiB.
    """
    buffer = b""
    async for piece in pieces:
        # The last three bytes may be the beginning of an empty line.
        searched = max(0, len(buffer) - 3)
        buffer += piece
        while match := _END.search(buffer, searched):
            yield buffer[: match.end()]
            buffer, searched = buffer[match.end() :], 0
        if len(buffer) > _MAX_EVENT_BYTES:
            raise UpstreamError(
                502, "event_too_long", f"the upstream sent an event of more than {_MAX_EVENT_BYTES} bytes"
            )
    if buffer:
        yield buffer


def event_data(block: bytes) -> str:
    """Returns the text of an event's `data` lines; empty if it has none, as in a comment."""
    lines = (line for line in _LINE.split(block) if line.startswith(b"data:"))
    return "\n".join(line[5:].removeprefix(b" ").decode("utf-8", "replace") for line in lines)


def parse_chunk(block: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in an event; None if it holds none, as in a comment or `[DONE]`."""
    try:
        value = json.loads(event_data(block))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def format_event(value: dict[str, Any], name: str = "") -> bytes:
    """Formats an object as a server-sent event; `name` is the event type, for APIs that name events."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def format_comment(text: str) -> bytes:
    """Formats a comment line, which clients skip. It becomes part of the next event."""
    return b": " + text.replace("\n", " ").replace("\r", " ").encode() + b"\n"
