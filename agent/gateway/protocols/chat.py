"""Chat Completions through the gateway: a whole reply, and how any reply ends without rules."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.endpoint import add_usage
from agent.episode import Message, StopReason
from agent.errors import RulesError
from agent.gateway.exchange import Exchange, extra_headers
from agent.gateway.wire import (
    DONE,
    ReplyHead,
    ReplyParts,
    Upstream,
    UpstreamError,
    error_body,
    format_comment,
    format_event,
    returned_headers,
)
from agent.tools import REFUSAL_WITHOUT_RULES

if TYPE_CHECKING:
    import httpx2

Recorder = Callable[[Exchange, Message | None, StopReason], None]
"""Told the conversation, the reply that was shown (None without one) and the stop reason."""

PATH = "/chat/completions"
_LONGEST_REPLY = 64 * 1024 * 1024  # bytes of an unstreamed reply
_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def complete_chat(exchange: Exchange, upstream: Upstream, record: Recorder) -> ReplyParts:
    """An unstreamed reply; its bytes are the upstream's unless the model consulted."""
    while True:
        async with upstream.ask(
            "POST", PATH, exchange.asked.headers, exchange.next_body(), exchange.asked.query
        ) as response:
            body = await read_whole(response)
            status, given = response.status_code, returned_headers(response.headers.items())
        outcome = await settled(exchange, status, given, body, record)
        if outcome is not None:
            for part in outcome:
                yield part
            return


async def settled(
    exchange: Exchange,
    status: int,
    given: dict[str, str],
    body: bytes,
    record: Recorder,
) -> list[ReplyHead | bytes] | None:
    """What the caller gets for a whole reply of the upstream; None when the model is to be asked again."""
    completion = _completion(body) if status == 200 else None
    if completion is None:
        exchange.upstream_failed(f"http_{status}", f"the upstream answered {status} without a completion")
        record(exchange, None, "error")
        return [ReplyHead(status, extra_headers(given, exchange.headers(final=True))).before(body), body]
    choice = completion["choices"][0]
    message = choice["message"]
    try:
        shown = await exchange.take(
            message, choice.get("finish_reason"), completion.get("usage"), completion.get("model")
        )
    except RulesError as error:
        exchange.rules_failed(error)
        return chat_without_rules(exchange, record)
    if shown is None:
        return None
    record(exchange, shown, "answer")
    head = ReplyHead(status, extra_headers(given, exchange.headers(final=True)))
    if shown is message and exchange.spent is None and not exchange.consulted:
        return [head.before(body), body]
    for name, text in exchange.thoughts.items():
        shown[name] = f"{text}\n\n{shown[name]}" if shown.get(name) else text
    if shown is not message:
        choice["finish_reason"] = "tool_calls" if shown.get("tool_calls") else "stop"
    choice["message"] = shown
    if usage := add_usage(exchange.spent, completion.get("usage")):
        completion["usage"] = usage
    body = json.dumps(completion).encode()
    return [head.before(body), body]


def said(exchange: Exchange) -> bytes:
    """What the headers of a whole reply say, for a stream whose headers went out before it was known."""
    return b"".join(
        format_comment(f"{name}: {value}") for name, value in exchange.headers(final=True).items()
    )


def chat_without_rules(
    exchange: Exchange, record: Recorder, *, begun: bool = False, opening: dict[str, Any] | None = None
) -> list[ReplyHead | bytes]:
    """The end of a conversation whose rules cannot be consulted, as the operator chose.

    `begun` when the caller's stream has its head already, and `opening` is the chunk that it began with.
    """
    headers = exchange.headers(final=True)
    why = exchange.error.message if exchange.error else "the safety rules cannot be consulted"
    if exchange.settings.on_rules_error == "fail":
        record(exchange, None, "error")
        if begun:
            return [error_event(why, "rules_unavailable"), DONE]
        return [ReplyHead(503, {**_JSON, **headers}), error_body(why, "rules_unavailable")]
    message: Message = {"role": "assistant", "content": REFUSAL_WITHOUT_RULES}
    record(exchange, message, "refused")
    base: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": exchange.asked.body.get("model"),
    }
    if not exchange.asked.streams:
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        body = {**base, "object": "chat.completion", "choices": [choice]}
        if exchange.spent:
            body["usage"] = exchange.spent
        return [ReplyHead(200, {**_JSON, **headers}), json.dumps(body).encode()]
    base |= {"object": "chat.completion.chunk"}
    base |= {k: v for k, v in (opening or {}).items() if k in ("id", "created", "model")}
    delta = {"content": REFUSAL_WITHOUT_RULES} if begun else message
    choices = [
        {"index": 0, "delta": delta, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    head: list[ReplyHead | bytes] = [] if begun else [ReplyHead(200, {**_EVENTS, **headers})]
    return [*head, *(format_event({**base, "choices": [choice]}) for choice in choices), said(exchange), DONE]


def error_event(message: str, type: str) -> bytes:
    """An error inside a stream, as OpenAI's clients read it."""
    return b"data: " + error_body(message, type) + b"\n\n"


async def read_whole(response: httpx2.Response) -> bytes:
    """All of a reply.

    Raises:
        UpstreamError: when it is longer than 64 MiB.
    """
    parts, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > _LONGEST_REPLY:
            raise UpstreamError(502, "reply_too_long", f"the upstream's reply is over {_LONGEST_REPLY} bytes")
        parts.append(piece)
    return b"".join(parts)


def _completion(body: bytes) -> dict[str, Any] | None:
    """The reply as a completion with at least one message; None when it is something else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    choices = value.get("choices") if isinstance(value, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return value if isinstance(first, dict) and isinstance(first.get("message"), dict) else None
