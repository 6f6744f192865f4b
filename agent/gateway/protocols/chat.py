"""Replies of the Chat Completions API."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, ClassVar

from agent.endpoint import add_usage
from agent.gateway.exchange import Exchange
from agent.gateway.protocols.dialect import (
    REFUSAL,
    Dialect,
    ShownSoFar,
    error_event,
    header_comments,
    parse_object,
)
from agent.gateway.wire import DONE, format_event


class ChatDialect(Dialect):
    """Chat completions and their chunks."""

    path: ClassVar[str] = "/chat/completions"

    def parse_reply(self, body: bytes) -> dict[str, Any] | None:
        reply = parse_object(body)
        choices = reply.get("choices") if reply is not None else None
        first = choices[0] if isinstance(choices, list) and choices else None
        return reply if isinstance(first, dict) and isinstance(first.get("message"), dict) else None

    def render(self, exchange: Exchange, reply: dict[str, Any], visible: Any) -> bytes | None:
        choice = reply["choices"][0]
        hidden_usage = exchange.turns.hidden_usage
        unchanged = visible is choice["message"]
        if unchanged and len(exchange.turns) == 1:
            return None
        for name, text in exchange.conversation.reasoning.items():
            visible[name] = f"{text}\n\n{visible[name]}" if visible.get(name) else text
        if not unchanged:
            choice["finish_reason"] = "tool_calls" if visible.get("tool_calls") else "stop"
        choice["message"] = visible
        if usage := add_usage(hidden_usage, reply.get("usage")):
            reply["usage"] = usage
        return json.dumps(reply).encode()

    def refusal(self, exchange: Exchange) -> bytes:
        choice = {"index": 0, "message": REFUSAL, "finish_reason": "stop", "logprobs": None}
        body = {**_base(exchange), "object": "chat.completion", "choices": [choice]}
        if exchange.turns.hidden_usage:
            body["usage"] = exchange.turns.hidden_usage
        return json.dumps(body).encode()

    def refusal_events(self, exchange: Exchange, shown: ShownSoFar) -> list[bytes]:
        opening = shown.opening or {}
        base = {**_base(exchange), "object": "chat.completion.chunk"}
        base |= {name: value for name, value in opening.items() if name in ("id", "created", "model")}
        delta = {"content": REFUSAL["content"]} if shown.head else REFUSAL
        choices = [
            {"index": 0, "delta": delta, "finish_reason": None},
            {"index": 0, "delta": {}, "finish_reason": "stop"},
        ]
        chunks = [format_event({**base, "choices": [choice]}) for choice in choices]
        return [*chunks, header_comments(exchange), DONE]

    def error_events(self, message: str, type: str) -> list[bytes]:
        return [error_event(message, type), DONE]


def _base(exchange: Exchange) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": exchange.request.body.get("model"),
    }
