"""The parts of a reply that differ between the two APIs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agent.episode import Message, StopReason
from agent.gateway.exchange import Exchange, Item
from agent.gateway.wire import ReplyHead, error_body, format_comment
from agent.tools import REFUSAL_WITHOUT_RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

Recorder = Callable[[Exchange, StopReason, Message | None], None]
"""Called with the exchange, the stop reason, and the gateway's own refusal if the caller got one."""
REFUSAL: Message = {"role": "assistant", "content": REFUSAL_WITHOUT_RULES}
JSON_HEADERS = {"content-type": "application/json"}
EVENT_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


@dataclass(frozen=True)
class ShownSoFar:
    """The part of a stream that the caller has received."""

    head: bool = False
    """Whether the head was sent."""
    opening: dict[str, Any] | None = None
    """The first chunk (Chat Completions), or the response that was announced (Responses); None before it."""
    items: Sequence[Item] = ()
    """Whole items, in the Responses API."""
    events: int = 0
    """Number of events, in the Responses API."""


class Dialect(ABC):
    """How one API writes replies and errors."""

    path: ClassVar[str]
    """Route below /v1."""

    @abstractmethod
    def parse_reply(self, body: bytes) -> dict[str, Any] | None:
        """Returns a whole reply of the upstream; None if the body is something else."""

    @abstractmethod
    def render(self, exchange: Exchange, reply: dict[str, Any], visible: Any) -> bytes | None:
        """Returns a body with the visible part of a reply; None if the upstream's body needs no change."""

    @abstractmethod
    def refusal(self, exchange: Exchange) -> bytes:
        """Returns a complete reply which states that the rules cannot be consulted."""

    @abstractmethod
    def refusal_events(self, exchange: Exchange, shown: ShownSoFar) -> list[bytes]:
        """Returns the events of such a reply, which continue the stream that the caller has received."""

    @abstractmethod
    def error_events(self, message: str, type: str) -> list[bytes]:
        """Returns the end of a stream that failed."""

    def upstream_error_events(self, status: int, body: bytes, retry_after: bytes = b"") -> list[bytes]:
        """Returns the end of a stream whose next turn the upstream refuses with an error.

        The events contain the upstream's error, status and Retry-After, because the HTTP status and headers
        were already sent.
        """
        given = (parse_object(body) or {}).get("error")
        error = given if isinstance(given, dict) else {}
        message = given if isinstance(given, str) else f"the upstream answered {status} without a stream"
        error = {"message": message, "type": "upstream_error", "param": None, "code": status, **error}
        error["status"] = status
        if retry_after:
            error["retry_after"] = retry_after.decode("latin-1")
        event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
        return [event, *self.error_events("", "")[1:]]


def error_event(message: str, type: str) -> bytes:
    """Formats an error inside a stream as OpenAI's clients read it."""
    return b"data: " + error_body(message, type) + b"\n\n"


def header_comments(exchange: Exchange) -> bytes:
    """Formats the final headers as comments, for a stream whose head was sent before they were known."""
    headers = exchange.headers(final=True)
    return b"".join(format_comment(f"{name}: {value}") for name, value in headers.items())


def reply_without_rules(
    dialect: Dialect,
    exchange: Exchange,
    record: Recorder,
    shown: ShownSoFar = ShownSoFar(),
) -> list[ReplyHead | bytes]:
    """Returns the end of a conversation whose rules cannot be consulted: an error, or a refusal.

    `shown` is the part of a stream that the caller has received.
    """
    headers = exchange.headers(final=True)
    if exchange.settings.on_rules_error == "fail":
        reason = exchange.error.message if exchange.error else "the safety rules cannot be consulted"
        record(exchange, "error", None)
        if shown.head:
            return [*dialect.error_events(reason, "rules_unavailable")]
        return [ReplyHead(503, {**JSON_HEADERS, **headers}), error_body(reason, "rules_unavailable")]
    record(exchange, "refused", REFUSAL)
    if not exchange.request.streams:
        return [ReplyHead(200, {**JSON_HEADERS, **headers}), dialect.refusal(exchange)]
    head: list[ReplyHead | bytes] = [] if shown.head else [ReplyHead(200, {**EVENT_HEADERS, **headers})]
    return [*head, *dialect.refusal_events(exchange, shown)]


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a body; None if it holds none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
