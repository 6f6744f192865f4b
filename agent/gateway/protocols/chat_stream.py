"""Streamed Chat Completions: one role, one finish reason, and the token counts of all turns."""

from __future__ import annotations

from typing import Any, ClassVar

from agent.gateway.protocols.chat import ChatDialect
from agent.gateway.protocols.chat_turn import ChatTurn
from agent.gateway.protocols.dialect import Dialect, ShownSoFar, header_comments
from agent.gateway.protocols.stream import StreamedExchange
from agent.gateway.wire import DONE, UpstreamError, event_data


class StreamedChat(StreamedExchange[ChatTurn]):
    """A streamed chat completion."""

    dialect: ClassVar[Dialect] = ChatDialect()
    _opening: dict[str, Any] | None = None

    def _new_turn(self) -> ChatTurn:
        return ChatTurn(self._exchange, opening=self._opening)

    def _can_flush(self, turn: ChatTurn) -> bool:
        return self._head_sent or turn.shown

    async def _before_sending(self, turn: ChatTurn, block: bytes | None, pieces: list[bytes]) -> None:
        is_done = block is not None and event_data(block).strip() == "[DONE]"
        ended = block is None or turn.failed or is_done
        if turn.consulting or not (ended or (turn.finished and turn.has_usage)):
            return
        # Before the terminal event: a caller that has received it may disconnect at once.
        await self._take(turn)
        if is_done and self._exchange.consulted:
            pieces.insert(-1, header_comments(self._exchange))

    async def _take(self, turn: ChatTurn) -> None:
        """Records a turn that is passed on unchanged, once."""
        exchange = self._exchange
        if exchange.recorded:
            return
        reply = turn.reply()
        await exchange.take(reply)
        complete = turn.finished and not turn.failed and bool(reply["choices"])
        if not complete:
            exchange.upstream_failed("broken_off", "the upstream broke off its reply")
        self._record(exchange, "answer" if complete else "error", None)

    def _after_relay(self, turn: ChatTurn) -> list[bytes] | None:
        if not turn.consulting:
            return []
        if not turn.finished and not turn.calls_are_complete:
            raise UpstreamError(502, "broken_off", "the upstream broke off its reply in the middle of a call")
        if turn.failed:  # the caller has the upstream's error; the calls may be incomplete
            self._exchange.upstream_failed("broken_off", "the upstream broke off its reply")
            self._record(self._exchange, "error", None)
            return [DONE]
        self._opening = turn.opening
        return None

    def _continue_after(self, turn: ChatTurn) -> None:
        """The next turn continues the same chunks."""

    def _shown_so_far(self) -> ShownSoFar:
        return ShownSoFar(self._head_sent, self._opening)
