"""Server-sent events, kept as the bytes they came in."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

from agent.gateway.wire.upstream import UpstreamError

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n"
"""A comment without the empty line that would end an event: no client takes it for one."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_LONGEST = 32 * 1024 * 1024  # bytes of one event


async def split_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole events with the empty line that ends each; what the stream ends with, ended or not, comes last.

    Raises:
        UpstreamError: when an event is longer than 32 MiB.
    """
    buffer = b""
    async for piece in pieces:
        # The last three bytes may be the beginning of an empty line.
        searched = max(0, len(buffer) - 3)
        buffer += piece
        while found := _END.search(buffer, searched):
            yield buffer[: found.end()]
            buffer, searched = buffer[found.end() :], 0
        if len(buffer) > _LONGEST:
            raise UpstreamError(502, "event_too_long", f"the upstream sent an event of over {_LONGEST} bytes")
    if buffer:
        yield buffer


def event_data(block: bytes) -> str:
    """The text of an event's `data` lines; empty when it has none, as in a comment."""
    lines = (line for line in _LINE.split(block) if line.startswith(b"data:"))
    return "\n".join(line[5:].removeprefix(b" ").decode("utf-8", "replace") for line in lines)


def parse_chunk(block: bytes) -> dict[str, Any] | None:
    """The JSON object in an event; None when it holds none, as in a comment or `[DONE]`."""
    try:
        value = json.loads(event_data(block))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def format_event(value: dict[str, Any], name: str = "") -> bytes:
    """An event with this object; `name` is its type where the API names them."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def format_comment(text: str) -> bytes:
    """A line that clients pass over; it belongs to the event after it."""
    return b": " + text.replace("\n", " ").replace("\r", " ").encode() + b"\n"
