"""A streamed Responses reply through the gateway: one creation, one completion, positions without gaps.

Events of our calls stay here; thoughts and text pass as they come (`--hold` keeps text back until the turn
is known to consult nothing). What was shown of a turn that then consulted is remembered, so that its call
follows it again when the caller sends it back: the upstream would refuse a thought without its call.
"""

from __future__ import annotations

import json
from typing import Any

from agent.errors import RulesError
from agent.gateway.exchange import Item, ResponsesExchange, extra_headers
from agent.gateway.protocols.chat import Recorder, error_event, read_whole, said
from agent.gateway.protocols.chat_stream import kept_alive
from agent.gateway.protocols.responses import PATH, ShownSoFar, as_shown, response_without_rules, settled
from agent.gateway.wire import (
    ReplyHead,
    ReplyParts,
    Upstream,
    UpstreamError,
    error_body,
    format_event,
    parse_chunk,
    returned_headers,
    split_events,
)

_ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}


class ResponsesTurn:
    """One streamed turn: feed it events, it returns the bytes that the caller is sent."""

    def __init__(
        self, exchange: ResponsesExchange, *, opened: str | None, shown: list[Item], sent: int
    ) -> None:
        self.consulting = False
        """Whether this turn calls the rule tool."""
        self.response: dict[str, Any] | None = None
        """The finished response; None before the end."""
        self.told = False
        """Whether the caller was sent a piece of an item."""
        self.text_told = False
        """Whether the caller was sent text."""
        self.sent = sent
        """Events sent in this and earlier turns; numbers the next one."""
        self._exchange = exchange
        self.opened = opened
        """Id of the response that the caller was told was created; None when it was told of none."""
        self._continues = opened is not None
        self._before = shown
        self._places: dict[int, int] = {}
        self._hidden: set[int] = set()
        self._held: list[tuple[bytes, dict[str, Any]]] = []

    def feed(self, block: bytes) -> list[bytes]:
        """Take in one event; the last one of a turn is returned by `last`."""
        data = parse_chunk(block)
        if data is None:
            return [block]
        kind, item, index = str(data.get("type")), data.get("item"), data.get("output_index")
        if kind in _ENDS:
            self.response = data.get("response") if isinstance(data.get("response"), dict) else {}
            self._end = (block, data)
            return []
        if kind in ("response.created", "response.in_progress", "response.queued"):
            if self._continues:
                return []
            created = data.get("response")
            self.opened = str(created.get("id")) if isinstance(created, dict) else self.opened
            return self._send(block, data)
        if kind == "response.output_item.added" and self._exchange.is_ours(item):
            self._hidden.add(index if isinstance(index, int) else -1)
            self.consulting = True
            return []
        if index in self._hidden:
            return []
        thought = ".reasoning" in kind or (isinstance(item, dict) and item.get("type") == "reasoning")
        if self._exchange.settings.hold and self._exchange.offer is not None and not thought:
            self._held.append((block, data))
            return []
        self.text_told |= kind in ("response.output_text.delta", "response.refusal.delta")
        return self._send(block, data)

    def last(self, shown: list[Item]) -> list[bytes]:
        """The end of the reply, whose last turn shows these items."""
        block, data = self._end
        ids = {item.get("id") for item in shown}
        pieces = [piece for held in self._held if _item_id(held[1]) in ids for piece in self._send(*held)]
        if "response" in data and self._exchange.consulted:
            response = as_shown(self._exchange, data["response"], [*self._before, *shown])
            if self.opened not in (None, response.get("id")):
                # One stream is one response to its reader; the upstream knows the last turn's id alone.
                self._exchange.halves.rename(self._exchange.asked.caller, self.opened, response.get("id"))
                response["id"] = self.opened
            data = {**data, "response": response}
            return [*pieces, said(self._exchange), *self._send(b"", data)]
        return [*pieces, *self._send(block, data)]

    def items(self) -> list[Item]:
        """The items of this turn that the caller was sent, whole."""
        output = (self.response or {}).get("output") or []
        return [output[at] for at in sorted(self._places) if at < len(output)]

    def _send(self, block: bytes, data: dict[str, Any]) -> list[bytes]:
        """The event as it came, or renumbered when events before it were kept here."""
        changed = dict(data)
        if isinstance(index := data.get("output_index"), int):
            place = self._places.setdefault(index, len(self._before) + len(self._places))
            changed["output_index"] = place
            self.told = True
        if "sequence_number" in data:
            changed["sequence_number"] = self.sent
        self.sent += 1
        same = block and json.dumps(changed) == json.dumps(data)
        return [block if same else format_event(changed, str(data.get("type")))]


def _item_id(data: dict[str, Any]) -> Any:
    """Id of the item that an event is about."""
    item = data.get("item")
    return item.get("id") if isinstance(item, dict) else data.get("item_id")


async def stream_response(exchange: ResponsesExchange, upstream: Upstream, record: Recorder) -> ReplyParts:
    """The whole exchange as a stream."""
    begun, given = False, dict[str, str]()
    early = list[bytes]()  # that a response was created, until something of it is shown
    shown: list[Item] = []
    opened: str | None = None
    sent = 0
    turn: ResponsesTurn | None = None

    def told() -> ShownSoFar:
        if turn is None or not (turn.told or shown):
            return ShownSoFar(begun)
        return ShownSoFar(begun, turn.opened, (*shown, *turn.items()), turn.sent)

    def begin(final: bool = False) -> list[ReplyHead | bytes]:
        nonlocal begun
        if begun:
            return []
        begun = True
        return [ReplyHead(200, extra_headers(given, exchange.headers(final=final)))]

    def flushed() -> list[bytes]:
        nonlocal early
        waiting, early = early, []
        return waiting

    try:
        while True:
            async with upstream.ask(
                "POST", PATH, exchange.asked.headers, exchange.next_body(), exchange.asked.query
            ) as reply:
                given = returned_headers(reply.headers.items())
                if reply.status_code != 200 or "event-stream" not in given.get("content-type", ""):
                    body = await read_whole(reply)
                    answer = await settled(exchange, reply.status_code, given, body, record)
                    if answer is None:
                        continue
                    if begun:
                        why = f"the upstream answered {reply.status_code} in place of a stream"
                        answer = [error_event(why, "upstream_error")]
                    for part in answer:
                        yield part
                    return
                turn = ResponsesTurn(exchange, opened=opened, shown=shown, sent=sent)
                events = split_events(reply.aiter_bytes())
                while turn.response is None:
                    found: list[bytes | None] = []
                    async for line in kept_alive(anext(events, None), exchange.settings.keepalive, found):
                        if begun or exchange.consulted:
                            for part in [*begin(), line]:
                                yield part
                    if found[0] is None:
                        raise UpstreamError(502, "broken_off", "the upstream broke off its reply")
                    pieces = turn.feed(found[0])
                    early += pieces
                    if turn.told or shown:
                        for part in [*begin(), *flushed()]:
                            yield part
            exchange.counters.text_before_consulting += turn.consulting and turn.text_told
            taken: list[list[Item] | None] = []
            async for line in kept_alive(
                exchange.take_reply(turn.response), exchange.settings.keepalive, taken
            ):
                for part in [*begin(), line]:
                    yield part
            visible = taken[0]
            if visible is None:
                shown += (seen := turn.items())
                if seen:
                    exchange.halves.keep_after(exchange.asked.caller, seen[-1].get("id"), exchange.hidden)
                if shown:
                    opened, sent = turn.opened, turn.sent
                else:
                    early.clear()
                continue
            record(exchange, None, "answer")
            for part in [*begin(final=True), *flushed(), *turn.last(visible)]:
                yield part
            return
    except RulesError as error:
        exchange.rules_failed(error)
        for part in response_without_rules(exchange, record, told()):
            yield part
    except UpstreamError as error:
        exchange.upstream_failed(error.type, str(error))
        record(exchange, None, "error")
        if begun:
            yield error_event(str(error), error.type)
            return
        yield ReplyHead(error.status, {"content-type": "application/json", **exchange.headers(final=True)})
        yield error_body(str(error), error.type)
