"""The Responses API through the gateway: what a request and a whole reply look like there.

Items take the place of messages: a call is an item, and so is a thought, which must go back whole before its
call.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.desk import REFUSAL, UNREACHABLE
from agent.episode import Message
from agent.errors import RulesError
from agent.gateway.answer import Head, Parts, error_body
from agent.gateway.asked import why_no_place
from agent.gateway.chat import Recorder, error_event, read_whole, said
from agent.gateway.exchange import Exchange, extra_headers
from agent.gateway.sse import event
from agent.gateway.upstream import Upstream, returned
from agent.toolcall import ToolCall, parse_arguments
from agent.usage import added, as_chat_usage

PATH = "/responses"
Item = dict[str, Any]
_MOST = 4096  # replies of mixed calls that are remembered
_JSON = {"content-type": "application/json"}


def why_no_tool(body: Mapping[str, Any]) -> str | None:
    """Why a Responses request is passed on without the rule tool; None when it can be offered."""
    if not isinstance(body.get("input"), str | list):
        return "no input"
    if body.get("tool_choice") == "none":
        return "tool_choice is none"
    if body.get("background"):
        return "background is asked for"
    return why_no_place(body)


@dataclass
class HalfReplies:
    """Our calls and their answers in replies that called the caller's tools too; the oldest are forgotten."""

    _kept: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _after: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _names: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def keep(self, caller: str, response_id: Any, theirs: list[Item], ours: list[Item]) -> None:
        """Keep our items of a reply under its id and under the ids of the caller's calls."""
        for id in [response_id, *(item.get("call_id") for item in theirs)]:
            if isinstance(id, str):
                self._kept[f"{caller} {id}"] = ours
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def keep_after(self, caller: str, item_id: Any, ours: list[Item]) -> None:
        """Keep our items of a hidden turn under the id of the last of its items that the caller was shown."""
        if isinstance(item_id, str):
            self._after[f"{caller} {item_id}"] = ours
        while len(self._after) > _MOST:
            self._after.popitem(last=False)

    def rename(self, caller: str, shown: Any, real: Any) -> None:
        """Note that the caller knows a reply under another id than the upstream."""
        self._names[f"{caller} {shown}"] = str(real)
        while len(self._names) > _MOST:
            self._names.popitem(last=False)

    def real(self, caller: str, shown: Any) -> Any:
        """The upstream's id of a reply that the caller names."""
        return self._names.get(f"{caller} {shown}", shown)

    def restore(self, caller: str, previous: Any, items: list[Any]) -> tuple[list[Any], int]:
        """The caller's items with ours put back, and in how many replies.

        A caller that names the previous reply has its calls at the upstream: only answers are missing.
        """
        whole: list[Any] = []
        done: list[int] = []
        if isinstance(previous, str) and (ours := self._kept.get(f"{caller} {previous}")) is not None:
            whole += [item for item in ours if item["type"] == "function_call_output"]
            done.append(id(ours))
        for item in items:
            if isinstance(item, dict) and item.get("type") == "function_call":
                ours = self._kept.get(f"{caller} {item.get('call_id')}")
                if ours is not None and id(ours) not in done:
                    whole += ours
                    done.append(id(ours))
            whole.append(item)
            if isinstance(item, dict) and (ours := self._after.get(f"{caller} {item.get('id')}")) is not None:
                whole += ours
                done.append(id(ours))
        return whole, len(done)


class ResponsesExchange(Exchange):
    """An exchange whose conversation is a list of items."""

    api = "responses"
    halves: HalfReplies
    items: list[Any]

    @property
    def conversation(self) -> list[Any]:
        """What the next request to the model holds."""
        return self.items

    @conversation.setter
    def conversation(self, given: list[Any]) -> None:
        self.items = given

    def begin(self, halves: HalfReplies) -> None:
        """Take in the caller's items."""
        self.halves = halves
        given = self.asked.body.get("input")
        self.items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])
        named = self.asked.body.get("previous_response_id")
        previous = halves.real(self.asked.caller, named)
        self._renamed = previous != named
        if self._renamed:
            self.asked.body["previous_response_id"] = previous
        if self.offer is not None:
            self.items, restored = halves.restore(self.asked.caller, previous, self.items)
            self.counters.restored += restored
        self.last: list[Item] = []
        """The output of the reply that was shown, our calls and their answers included."""
        self.hidden: list[Item] = []
        """Our calls and their answers in the last hidden turn."""

    def next_body(self) -> bytes:
        """The body of the next request to the upstream; begins a turn."""
        self.begin_turn()
        if self.offer is None:
            return json.dumps(self.asked.body).encode() if self._renamed else self.asked.raw
        body = {**self.asked.body, "input": self.items}
        if self.offering:
            tool = {"type": "function", **self.offer.tool["function"]}
            body["tools"] = [*(body.get("tools") or []), tool]
            choice = body.get("tool_choice")
            if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
                name = {"type": "function", "name": self.offer.name}
                body["tool_choice"] = {**choice, "tools": [*(choice.get("tools") or []), name]}
        return json.dumps(body).encode()

    def is_ours(self, item: Any) -> bool:
        """Whether an item is a call of the rule tool."""
        return (
            self.offer is not None
            and isinstance(item, dict)
            and item.get("type") == "function_call"
            and item.get("name") == self.offer.name
        )

    async def take_reply(self, response: dict[str, Any]) -> list[Item] | None:
        """What of a reply's output the caller is shown; None when it consulted and called nothing else.

        Raises:
            RulesError: when the rules cannot be consulted and the model is not to answer without them.
        """
        output = response.get("output") or []
        if self.offering and any(self.is_ours(item) for item in output):
            return await self.carried_out(self._take_reply(response))
        return await self._take_reply(response)

    async def _take_reply(self, response: dict[str, Any]) -> list[Item] | None:
        index = len(self.turns)
        usage = response.get("usage")
        self.note_turn(response.get("status"), as_chat_usage(usage), response.get("model"))
        output = [item for item in response.get("output") or [] if isinstance(item, dict)]
        self.last = output
        ours = [item for item in output if self.is_ours(item)]
        shown = [item for item in output if not self.is_ours(item)]
        if not ours or not self.offering:
            return shown
        answers: list[Item] = []
        self.counters.consulted += not self.consulted
        for item in ours:
            self.counters.consultations += 1
            arguments = item.get("arguments") if isinstance(item.get("arguments"), str) else ""
            parsed, problem = parse_arguments(arguments or "")
            call = ToolCall(str(item.get("call_id")), str(item.get("name")), arguments or "", parsed, problem)
            answer = {"type": "function_call_output", "call_id": item.get("call_id"), "output": UNREACHABLE}
            answers.append(answer)
            self.last = [*output, *answers]
            answer["output"] = await self.desk.answer(call, index)
            self.note_rules_error()
        theirs = [item for item in shown if item.get("type") == "function_call"]
        if theirs:
            self.counters.mixed += 1
            self.halves.keep(self.asked.caller, response.get("id"), theirs, [*ours, *answers])
            if self.settings.hold:  # written before a consultation, so without what it found
                return [item for item in shown if item.get("type") != "message"]
            return shown
        self.spent = added(self.spent, usage if isinstance(usage, dict) else None)
        self.items += [*output, *answers]
        self.last = []
        self.hidden = [*ours, *answers]
        self.stop_offering_if_enough()
        self.keep_progress()
        return None

    def logged(self) -> list[Message]:
        """The conversation in the form of an episode's messages."""
        given = self.asked.body.get("instructions")
        first = [{"role": "system", "content": given}] if isinstance(given, str) else []
        return [*first, *_joined(_message(m) for m in [*self.items, *self.last] if isinstance(m, dict))]


async def whole_response(exchange: ResponsesExchange, upstream: Upstream, record: Recorder) -> Parts:
    """An unstreamed reply; its bytes are the upstream's unless the model consulted."""
    while True:
        async with upstream.ask(
            "POST", PATH, exchange.asked.headers, exchange.next_body(), exchange.asked.query
        ) as reply:
            body = await read_whole(reply)
            status, given = reply.status_code, returned(reply.headers.items())
        outcome = await settled(exchange, status, given, body, record)
        if outcome is not None:
            for part in outcome:
                yield part
            return


async def settled(
    exchange: ResponsesExchange, status: int, given: dict[str, str], body: bytes, record: Recorder
) -> list[Head | bytes] | None:
    """What the caller gets for a whole reply of the upstream; None when the model is to be asked again."""
    response = _response(body) if status == 200 else None
    if response is None:
        exchange.upstream_failed(f"http_{status}", f"the upstream answered {status} without a response")
        record(exchange, None, "error")
        return [Head(status, extra_headers(given, exchange.headers(final=True))), body]
    try:
        shown = await exchange.take_reply(response)
    except RulesError as error:
        exchange.rules_failed(error)
        return without_rules(exchange, record)
    if shown is None:
        return None
    record(exchange, None, "answer")
    if exchange.consulted or len(shown) != len(response.get("output") or []):
        body = json.dumps(as_shown(exchange, response, shown)).encode()
    return [Head(status, extra_headers(given, exchange.headers(final=True))).before(body), body]


def as_shown(exchange: Exchange, response: dict[str, Any], shown: list[Item]) -> dict[str, Any]:
    """A response with the output that the caller is shown and the tokens of all turns."""
    changed = {**response, "output": shown}
    if usage := added(exchange.spent, response.get("usage")):
        changed["usage"] = usage
    if isinstance(response.get("tools"), list) and "tools" in response:
        changed["tools"] = exchange.asked.body.get("tools") or []
    return changed


@dataclass(frozen=True)
class Told:
    """What of a response the caller's stream held when it could not go on: nothing, perhaps."""

    begun: bool = False
    """Whether the head went out."""
    opened: str | None = None
    """Id of the response that was said to be created; None when nothing of it was sent."""
    items: tuple[Item, ...] = ()
    sent: int = 0
    """Events that were sent."""


def without_rules(exchange: Exchange, record: Recorder, told: Told = Told()) -> list[Head | bytes]:
    """The end of a conversation whose rules cannot be consulted, as the operator chose."""
    headers = exchange.headers(final=True)
    why = exchange.error.message if exchange.error else "the safety rules cannot be consulted"
    if exchange.settings.on_rules_error == "fail":
        record(exchange, None, "error")
        if told.begun:
            return [error_event(why, "rules_unavailable")]
        return [Head(503, {**_JSON, **headers}), error_body(why, "rules_unavailable")]
    part = {"type": "output_text", "text": REFUSAL, "annotations": []}
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
    record(exchange, {"role": "assistant", "content": REFUSAL}, "refused")
    if not exchange.asked.streams:
        return [Head(200, {**_JSON, **headers}), json.dumps(response).encode()]
    place = {"item_id": message["id"], "output_index": len(told.items), "content_index": 0}
    at = {"output_index": len(told.items)}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "output": [], "status": "in_progress"}},
        {"type": "response.output_item.added", **at, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": REFUSAL, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": REFUSAL, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", **at, "item": message},
        {"type": "response.completed", "response": response},
    ]
    left = events[1:] if told.opened else events
    pieces = [
        event({**each, "sequence_number": number}, each["type"])
        for number, each in enumerate(left, told.sent)
    ]
    stream = Head(200, {"content-type": "text/event-stream", **headers})
    return [*([] if told.begun else [stream]), *pieces[:-1], said(exchange), pieces[-1]]


def _response(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("output"), list) else None


def _message(item: Item) -> Message:
    """An item as a message, for the log."""
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": str(item.get("arguments"))}
        entry = {"id": str(item.get("call_id")), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [entry]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": str(item.get("output"))}
    if kind == "reasoning":
        summary = _texts(item.get("summary"))
        return {"role": "assistant", "content": None, "reasoning": "\n".join(summary)}
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(_texts(content))
    return {"role": item.get("role", "assistant"), "content": content}


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """One message for the items of a reply: its thoughts, its text and its calls."""
    reply: Message | None = None
    for message in messages:
        if message.get("role") != "assistant" or reply is None:
            if reply is not None:
                yield reply
            reply = message if message.get("role") == "assistant" else None
            if reply is None:
                yield message
            continue
        for name in ("content", "reasoning"):
            texts = [each[name] for each in (reply, message) if isinstance(each.get(name), str)]
            reply = {**reply, name: "\n\n".join(texts)} if texts else reply
        if calls := [*(reply.get("tool_calls") or []), *(message.get("tool_calls") or [])]:
            reply = {**reply, "tool_calls": calls}
    if reply is not None:
        yield reply


def _texts(parts: Any) -> list[str]:
    found = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return [text for text in found if isinstance(text, str)]
