"""Replies of the Responses API."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, ClassVar

from agent.endpoint import add_usage
from agent.gateway.exchange import Exchange, Item, ResponsesConversation
from agent.gateway.protocols.dialect import (
    Dialect,
    ShownSoFar,
    error_event,
    header_comments,
    parse_object,
)
from agent.gateway.wire import format_event
from agent.tools import REFUSAL_WITHOUT_RULES

_PART = {"type": "output_text", "text": REFUSAL_WITHOUT_RULES, "annotations": []}


class ResponsesDialect(Dialect):
    """Responses and their events."""

    path: ClassVar[str] = "/responses"

    def parse_reply(self, body: bytes) -> dict[str, Any] | None:
        reply = parse_object(body)
        return reply if reply is not None and isinstance(reply.get("output"), list) else None

    def render(self, exchange: Exchange, reply: dict[str, Any], visible: Any) -> bytes | None:
        if len(exchange.turns) == 1 and len(visible) == len(reply.get("output") or []):
            shown = without_hint(exchange, reply)
            return None if shown is reply else json.dumps(shown).encode()
        return json.dumps(with_output(exchange, reply, visible)).encode()

    def refusal(self, exchange: Exchange) -> bytes:
        return json.dumps(_refusal(exchange, _message(), ShownSoFar())).encode()

    def refusal_events(self, exchange: Exchange, shown: ShownSoFar) -> list[bytes]:
        message = _message()
        response = _refusal(exchange, message, shown)
        position = {"output_index": len(shown.items)}
        place = {"item_id": message["id"], **position, "content_index": 0}
        text = REFUSAL_WITHOUT_RULES
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**response, "output": [], "status": "in_progress"}},
            {"type": "response.output_item.added", **position, "item": {**message, "content": []}},
            {"type": "response.content_part.added", **place, "part": {**_PART, "text": ""}},
            {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []},
            {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **place, "part": _PART},
            {"type": "response.output_item.done", **position, "item": message},
            {"type": "response.completed", "response": response},
        ]
        if shown.opening is not None:
            del events[0]
        pieces = [
            format_event({**event, "sequence_number": number}, event["type"])
            for number, event in enumerate(events, shown.events)
        ]
        return [*pieces[:-1], header_comments(exchange), pieces[-1]]

    def error_events(self, message: str, type: str) -> list[bytes]:
        return [error_event(message, type)]


def with_output(exchange: Exchange, response: dict[str, Any], output: list[Item]) -> dict[str, Any]:
    """Returns a response with the output that the caller sees, and the token counts of all turns."""
    changed = {**without_hint(exchange, response), "output": output}
    if usage := add_usage(exchange.turns.hidden_usage, response.get("usage")):
        changed["usage"] = usage
    if isinstance(response.get("tools"), list):
        changed["tools"] = exchange.request.body.get("tools") or []
    return changed


def without_hint(exchange: Exchange, response: dict[str, Any]) -> dict[str, Any]:
    """Returns a response that repeats the caller's own instructions, without the hint at their end."""
    conversation = exchange.conversation
    assert isinstance(conversation, ResponsesConversation)
    if not conversation.hint_in_instructions or response.get("instructions") is None:
        return response
    return {**response, "instructions": exchange.request.body.get("instructions")}


def _message() -> Item:
    return {
        "type": "message",
        "id": f"msg_{uuid.uuid4().hex}",
        "role": "assistant",
        "status": "completed",
        "content": [_PART],
    }


def _refusal(exchange: Exchange, message: Item, shown: ShownSoFar) -> dict[str, Any]:
    opening = shown.opening or {}
    return {
        "id": opening.get("id") or f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": exchange.request.body.get("model"),
        "output": [*shown.items, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": exchange.request.body.get("tools") or [],
        "usage": exchange.turns.hidden_usage,
    }
