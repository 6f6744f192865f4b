"""One streamed turn of a Responses reply: passes its events on, or withholds them.

Events of the rule tool's calls are withheld; reasoning and text pass at once (`--hold` withholds text until
the turn is known not to consult).
"""

from __future__ import annotations

import json
from typing import Any

from agent.gateway.exchange import Exchange, Item, ResponsesConversation
from agent.gateway.protocols.dialect import header_comments
from agent.gateway.protocols.responses import with_output, without_hint
from agent.gateway.wire import UpstreamError, format_event, parse_chunk

_TERMINAL = {"response.completed", "response.incomplete", "response.failed", "error"}
_ITEM_EVENTS = {"response.output_item.added", "response.output_item.done"}
_CREATED = {"response.created", "response.in_progress", "response.queued"}
Event = dict[str, Any]


class ResponsesTurn:
    """Receives the events of one turn, and returns the bytes to send to the caller.

    Args:
        exchange: the exchange that the turn belongs to.
        opened: id of the response that the caller's stream announced; None if it announced none.
        items: the items that earlier turns sent.
        events: number of events that earlier turns sent.
    """

    def __init__(self, exchange: Exchange, *, opened: str | None, items: list[Item], events: int) -> None:
        self.consulting = False
        """Whether the turn has hidden calls."""
        self.shown = False
        """Whether a part of an item was sent to the caller."""
        self.text_shown = False
        """Whether text was sent to the caller."""
        self.ended = False
        """Whether the response is finished."""
        self.opened = opened
        """Id of the response that the caller's stream announced; None if it announced none."""
        self.events = events
        """Number of events sent in this and earlier turns; the next one's sequence number."""
        conversation = exchange.conversation
        assert isinstance(conversation, ResponsesConversation)
        self._exchange, self._conversation = exchange, conversation
        self._response: dict[str, Any] = {}
        self._terminal: tuple[bytes, Event] = (b"", {})
        self._continues = opened is not None
        self._earlier_items = items
        self._positions: dict[int, int] = {}
        """Position of an item in the caller's stream, by its position in the upstream's."""
        self._seen: dict[int, Item] = {}
        """The items so far by position: some servers leave them out of the final response."""
        self._hidden: set[int] = set()
        self._held: list[tuple[bytes, Event]] = []

    def feed(self, block: bytes) -> list[bytes]:
        """Takes one event. The terminal one is withheld; `closing` returns it."""
        event = parse_chunk(block)
        if event is None:
            return [block]
        kind, item, index = str(event.get("type")), event.get("item"), event.get("output_index")
        if kind in _TERMINAL:
            response = event.get("response")
            self._response = {**response} if isinstance(response, dict) else {}
            self._response["output"] = self._output()
            self._terminal = (block, event)
            self.ended = True
            return []
        if kind in _CREATED:
            if self._continues:
                return []
            created = event.get("response")
            self.opened = str(created.get("id")) if isinstance(created, dict) else self.opened
            return self._send_without_hint(block, event)
        self._collect(kind, event)
        if kind in _ITEM_EVENTS and self._conversation.is_hidden(item):
            self._hidden.add(index if isinstance(index, int) else -1)
            self.consulting = True
            return []
        if index in self._hidden:
            return []
        reasoning = ".reasoning" in kind or (isinstance(item, dict) and item.get("type") == "reasoning")
        if self._exchange.settings.hold and self._exchange.loop.offer is not None and not reasoning:
            self._held.append((block, event))
            return []
        self.text_shown |= kind in ("response.output_text.delta", "response.refusal.delta")
        return self._send(block, event)

    def _collect(self, kind: str, event: Event) -> None:
        """Assembles the items from their events."""
        index, item = event.get("output_index"), event.get("item")
        if not isinstance(index, int):
            return
        if kind in _ITEM_EVENTS and isinstance(item, dict):
            self._seen[index] = {**self._seen.get(index, {}), **item}
        elif kind == "response.function_call_arguments.delta" and index in self._seen:
            pieces = (self._seen[index].get("arguments"), event.get("delta"))
            self._seen[index]["arguments"] = "".join(text for text in pieces if isinstance(text, str))
        elif kind == "response.function_call_arguments.done" and index in self._seen:
            self._seen[index]["arguments"] = event.get("arguments")

    def _output(self) -> list[Any]:
        """Returns the final response's items, or those of the events if it has fewer."""
        output = self._response.get("output")
        final = output if isinstance(output, list) else []
        seen = [self._seen[index] for index in sorted(self._seen)]
        if len(final) < len(seen):
            return seen
        by_id = {item.get("id"): item for item in seen if item.get("id")}
        return [_with_arguments(item, by_id) for item in final]

    def end(self) -> list[bytes]:
        """Called when the stream ends before its terminal event.

        Raises:
            UpstreamError: always.
        """
        raise UpstreamError(502, "broken_off", "the upstream broke off its reply")

    def reply(self) -> dict[str, Any]:
        """Returns the finished response."""
        return self._response

    def closing(self, visible: list[Item]) -> list[bytes]:
        """Returns the end of the reply, whose last turn shows these items."""
        block, event = self._terminal
        ids = {item.get("id") for item in visible}
        pieces = [piece for held in self._held if _item_id(held[1]) in ids for piece in self._send(*held)]
        unchanged = len(self._exchange.turns) == 1 and not self.consulting
        if "response" not in event or unchanged:
            return [*pieces, *self._send_without_hint(block, event)]
        response = with_output(self._exchange, self._response, [*self._earlier_items, *visible])
        if self.opened not in (None, response.get("id")):
            # The stream is one response to the caller, but the upstream only knows the last turn's id.
            self._conversation.note_response_id(self.opened, response.get("id"))
            response["id"] = self.opened
        comments = [header_comments(self._exchange)] if self._exchange.consulted else []
        return [*pieces, *comments, *self._send(b"", {**event, "response": response})]

    def shown_items(self) -> list[Item]:
        """Returns the complete items of this turn that were sent to the caller."""
        output = self._response.get("output") or []
        sent = sorted(self._positions)
        return [output[at] if at < len(output) else self._seen[at] for at in sent if at in self._seen]

    def _send_without_hint(self, block: bytes, event: Event) -> list[bytes]:
        """Returns an event whose response may repeat the instructions of the request."""
        response = event.get("response")
        if isinstance(response, dict):
            shown = without_hint(self._exchange, response)
            block, event = (block, event) if shown is response else (b"", {**event, "response": shown})
        return self._send(block, event)

    def _send(self, block: bytes, event: Event) -> list[bytes]:
        """Returns the event, unchanged or renumbered if events before it were withheld."""
        changed = dict(event)
        if isinstance(index := event.get("output_index"), int):
            next_position = len(self._earlier_items) + len(self._positions)
            changed["output_index"] = self._positions.setdefault(index, next_position)
            self.shown = True
        if "sequence_number" in event:
            changed["sequence_number"] = self.events
        self.events += 1
        unchanged = block and json.dumps(changed) == json.dumps(event)
        return [block if unchanged else format_event(changed, str(event.get("type")))]


def _with_arguments(item: Any, seen: dict[Any, Item]) -> Any:
    """Returns a call with the arguments of its events if the final response left them out."""
    known = seen.get(item.get("id")) if isinstance(item, dict) else None
    if known is None or item.get("type") != "function_call" or item.get("arguments"):
        return item
    return {**item, "arguments": known.get("arguments", "")}


def _item_id(event: Event) -> Any:
    """Id of the item that an event belongs to."""
    item = event.get("item")
    return item.get("id") if isinstance(item, dict) else event.get("item_id")
