"""The Responses API through the gateway: what a request and a whole reply look like there.

Items take the place of messages: a call is an item, and so is a thought, which must go back whole before its
call.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from agent.endpoint import add_usage
from agent.errors import RulesError
from agent.gateway.exchange import Exchange, Item, ResponsesExchange, extra_headers
from agent.gateway.protocols.chat import Recorder, error_event, read_whole, said
from agent.gateway.wire import ReplyHead, ReplyParts, Upstream, error_body, format_event, returned_headers
from agent.tools import REFUSAL_WITHOUT_RULES

PATH = "/responses"
_JSON = {"content-type": "application/json"}


async def complete_response(exchange: ResponsesExchange, upstream: Upstream, record: Recorder) -> ReplyParts:
    """An unstreamed reply; its bytes are the upstream's unless the model consulted."""
    while True:
        async with upstream.ask(
            "POST", PATH, exchange.asked.headers, exchange.next_body(), exchange.asked.query
        ) as reply:
            body = await read_whole(reply)
            status, given = reply.status_code, returned_headers(reply.headers.items())
        outcome = await settled(exchange, status, given, body, record)
        if outcome is not None:
            for part in outcome:
                yield part
            return


async def settled(
    exchange: ResponsesExchange, status: int, given: dict[str, str], body: bytes, record: Recorder
) -> list[ReplyHead | bytes] | None:
    """What the caller gets for a whole reply of the upstream; None when the model is to be asked again."""
    response = _response(body) if status == 200 else None
    if response is None:
        exchange.upstream_failed(f"http_{status}", f"the upstream answered {status} without a response")
        record(exchange, None, "error")
        return [ReplyHead(status, extra_headers(given, exchange.headers(final=True))), body]
    try:
        shown = await exchange.take_reply(response)
    except RulesError as error:
        exchange.rules_failed(error)
        return response_without_rules(exchange, record)
    if shown is None:
        return None
    record(exchange, None, "answer")
    if exchange.consulted or len(shown) != len(response.get("output") or []):
        body = json.dumps(as_shown(exchange, response, shown)).encode()
    return [ReplyHead(status, extra_headers(given, exchange.headers(final=True))).before(body), body]


def as_shown(exchange: Exchange, response: dict[str, Any], shown: list[Item]) -> dict[str, Any]:
    """A response with the output that the caller is shown and the tokens of all turns."""
    changed = {**response, "output": shown}
    if usage := add_usage(exchange.spent, response.get("usage")):
        changed["usage"] = usage
    if isinstance(response.get("tools"), list) and "tools" in response:
        changed["tools"] = exchange.asked.body.get("tools") or []
    return changed


@dataclass(frozen=True)
class ShownSoFar:
    """What of a response the caller's stream held when it could not go on: nothing, perhaps."""

    begun: bool = False
    """Whether the head went out."""
    opened: str | None = None
    """Id of the response that was said to be created; None when nothing of it was sent."""
    items: tuple[Item, ...] = ()
    sent: int = 0
    """Events that were sent."""


def response_without_rules(
    exchange: Exchange, record: Recorder, told: ShownSoFar = ShownSoFar()
) -> list[ReplyHead | bytes]:
    """The end of a conversation whose rules cannot be consulted, as the operator chose."""
    headers = exchange.headers(final=True)
    why = exchange.error.message if exchange.error else "the safety rules cannot be consulted"
    if exchange.settings.on_rules_error == "fail":
        record(exchange, None, "error")
        if told.begun:
            return [error_event(why, "rules_unavailable")]
        return [ReplyHead(503, {**_JSON, **headers}), error_body(why, "rules_unavailable")]
    part = {"type": "output_text", "text": REFUSAL_WITHOUT_RULES, "annotations": []}
    message = {
        "type": "message",
        "id": f"msg_{uuid.uuid4().hex}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    response = {
        "id": told.opened or f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": exchange.asked.body.get("model"),
        "output": [*told.items, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": exchange.asked.body.get("tools") or [],
        "usage": exchange.spent,
    }
    record(exchange, {"role": "assistant", "content": REFUSAL_WITHOUT_RULES}, "refused")
    if not exchange.asked.streams:
        return [ReplyHead(200, {**_JSON, **headers}), json.dumps(response).encode()]
    place = {"item_id": message["id"], "output_index": len(told.items), "content_index": 0}
    at = {"output_index": len(told.items)}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "output": [], "status": "in_progress"}},
        {"type": "response.output_item.added", **at, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": REFUSAL_WITHOUT_RULES, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": REFUSAL_WITHOUT_RULES, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", **at, "item": message},
        {"type": "response.completed", "response": response},
    ]
    left = events[1:] if told.opened else events
    pieces = [
        format_event({**each, "sequence_number": number}, each["type"])
        for number, each in enumerate(left, told.sent)
    ]
    stream = ReplyHead(200, {"content-type": "text/event-stream", **headers})
    return [*([] if told.begun else [stream]), *pieces[:-1], said(exchange), pieces[-1]]


def _response(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("output"), list) else None
