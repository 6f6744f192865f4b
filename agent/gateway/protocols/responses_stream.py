"""Streamed Responses replies: one creation, one completion, and positions without gaps.

The store keeps which parts of a turn the caller saw before the turn consulted, so that the hidden call
follows them again when the caller sends them back: the upstream refuses reasoning without its call.
"""

from __future__ import annotations

from typing import ClassVar

from agent.gateway.exchange import Exchange, Item, ResponsesConversation
from agent.gateway.protocols.dialect import Dialect, Recorder, ShownSoFar
from agent.gateway.protocols.responses import ResponsesDialect
from agent.gateway.protocols.responses_turn import ResponsesTurn
from agent.gateway.protocols.stream import StreamedExchange
from agent.gateway.wire import Upstream


class StreamedResponse(StreamedExchange[ResponsesTurn]):
    """A streamed response."""

    dialect: ClassVar[Dialect] = ResponsesDialect()

    def __init__(self, exchange: Exchange, upstream: Upstream, record: Recorder) -> None:
        super().__init__(exchange, upstream, record)
        self._items: list[Item] = []
        """Items that were sent to the caller in earlier turns."""
        assert isinstance(exchange.conversation, ResponsesConversation)
        self._conversation = exchange.conversation
        self._opened: str | None = None
        self._events = 0

    def _new_turn(self) -> ResponsesTurn:
        return ResponsesTurn(self._exchange, opened=self._opened, items=self._items, events=self._events)

    def _can_flush(self, turn: ResponsesTurn) -> bool:
        return turn.shown or bool(self._items)

    async def _before_sending(self, turn: ResponsesTurn, block: bytes | None, pieces: list[bytes]) -> None:
        """Sends the pieces unchanged: the terminal event waits for `_consult`."""

    def _after_relay(self, turn: ResponsesTurn) -> list[bytes] | None:
        return None

    def _continue_after(self, turn: ResponsesTurn) -> None:
        shown = turn.shown_items()
        self._conversation.note_visible_items(shown)
        self._items += shown
        if self._items:
            self._opened, self._events = turn.opened, turn.events
        else:
            self._withheld.clear()  # the next turn announces its own response

    def _shown_so_far(self) -> ShownSoFar:
        turn = self._turn
        if turn is None or not (turn.shown or self._items):
            return ShownSoFar(self._head_sent)
        items = (*self._items, *turn.shown_items())
        return ShownSoFar(self._head_sent, {"id": turn.opened}, items, turn.events)
