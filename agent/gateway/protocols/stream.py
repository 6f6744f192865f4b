"""Streamed replies, in either API."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from agent.errors import RulesError
from agent.gateway.exchange import Exchange
from agent.gateway.protocols.dialect import (
    JSON_HEADERS,
    Dialect,
    Recorder,
    ShownSoFar,
    reply_without_rules,
)
from agent.gateway.protocols.unstreamed import ask, read_body, settle
from agent.gateway.wire import (
    KEEPALIVE,
    RawHeaders,
    ReplyHead,
    ReplyParts,
    Upstream,
    UpstreamError,
    error_body,
    returned_headers,
    split_events,
)

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")


class StreamedTurn(Protocol):
    """One streamed turn of the model: receives the upstream's events, returns the caller's bytes."""

    consulting: bool
    """Whether the turn calls the rule tool."""
    shown: bool
    """Whether a part of the turn's content was sent to the caller."""
    text_shown: bool
    """Whether text was sent to the caller."""
    ended: bool
    """Whether no more events are needed."""

    def feed(self, block: bytes) -> list[bytes]:
        """Takes one event."""
        ...

    def end(self) -> list[bytes]:
        """Ends the stream, and returns what is still withheld."""
        ...

    def reply(self) -> dict[str, Any]:
        """The turn as a whole reply."""
        ...

    def closing(self, visible: Any) -> list[bytes]:
        """The end of the caller's stream, which shows this part of the turn."""
        ...


TurnT = TypeVar("TurnT", bound=StreamedTurn)


class StreamedExchange(ABC, Generic[TurnT]):
    """One streamed reply, in phases: ask, relay, consult, and either ask again or close.

    The head is withheld until some content can be sent, so that its headers can name the consultations of
    the turns before.
    """

    dialect: ClassVar[Dialect]

    def __init__(self, exchange: Exchange, upstream: Upstream, record: Recorder) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._record = record
        self._upstream_headers: RawHeaders = ()
        self._streams = False
        """Whether the last reply of the upstream was a stream."""
        self._turn: TurnT | None = None
        self._head_sent = False
        self._withheld: list[bytes] = []
        """Bytes that wait for the head."""
        self._finished = False

    @abstractmethod
    def _new_turn(self) -> TurnT:
        """Creates the next turn, which continues the reply sent so far."""

    @abstractmethod
    def _can_flush(self, turn: TurnT) -> bool:
        """Returns whether the withheld bytes can be sent."""

    @abstractmethod
    async def _before_sending(self, turn: TurnT, block: bytes | None, pieces: list[bytes]) -> None:
        """Called with an event of the upstream, None at the end, and the pieces that the caller will get."""

    @abstractmethod
    def _after_relay(self, turn: TurnT) -> list[bytes] | None:
        """Returns the end of the stream if the turn needs no consultation; None if it does.

        Raises:
            UpstreamError: if the turn is incomplete.
        """

    @abstractmethod
    def _continue_after(self, turn: TurnT) -> None:
        """Prepares the turn after one that only consulted."""

    @abstractmethod
    def _shown_so_far(self) -> ShownSoFar:
        """Returns the part of the reply that was sent to the caller."""

    async def parts(self) -> ReplyParts:
        """Yields head and bytes until the model has answered."""
        exchange, dialect = self._exchange, self.dialect
        try:
            while not self._finished:
                async with aclosing(self._run_turn()) as parts:
                    async for part in parts:
                        yield part
        except RulesError as error:
            exchange.rules_failed(error)
            for part in reply_without_rules(dialect, exchange, self._record, self._shown_so_far()):
                yield part
        except UpstreamError as error:
            exchange.upstream_failed(error.type, str(error))
            self._record(exchange, "error", None)
            if self._head_sent:
                for piece in dialect.error_events(str(error), error.type):
                    yield piece
                return
            yield ReplyHead(error.status, {**JSON_HEADERS, **exchange.headers(final=True)})
            yield error_body(str(error), error.type)

    async def _run_turn(self) -> ReplyParts:
        """Asks the model once, and consults if its reply requires that."""
        self._turn = None
        async with AsyncExitStack() as stack:
            opening = stack.enter_async_context(ask(self._exchange, self._upstream, self.dialect))
            if self._streams:  # in later turns the caller waits longer than for the upstream itself
                responses: list[httpx2.Response] = []
                async for part in self._wait(opening, responses):
                    yield part
                (response,) = responses
            else:
                response = await opening
            self._upstream_headers = returned_headers(response.headers.raw)
            self._streams = "event-stream" in response.headers.get("content-type", "")
            if response.status_code != 200 or not self._streams:
                body = await read_body(response)
                for part in await self._settle(response.status_code, body):
                    yield part
                return
            turn = self._turn = self._new_turn()
            async for part in self._relay(turn, split_events(response.aiter_bytes())):
                yield part
        ending = self._after_relay(turn)
        if ending is None:
            async for part in self._consult(turn):
                yield part
            return
        self._finished = True
        for part in [*self._start(final=True), *ending]:
            yield part

    async def _settle(self, status: int, body: bytes) -> list[ReplyHead | bytes]:
        """Processes a complete reply of an upstream that did not stream; empty to call the model again."""
        parts = await settle(self._exchange, self.dialect, status, self._upstream_headers, body, self._record)
        self._finished = parts is not None
        if parts is not None and self._head_sent:
            retry_after = [value for name, value in self._upstream_headers if name == b"retry-after"]
            return [*self.dialect.upstream_error_events(status, body, *retry_after[:1])]
        return parts or []

    async def _relay(self, turn: TurnT, events: AsyncIterator[bytes]) -> ReplyParts:
        """Passes the upstream's events through the turn."""
        while not turn.ended:
            blocks: list[bytes | None] = []
            async for part in self._wait(anext(events, None), blocks):
                yield part
            (block,) = blocks
            pieces = turn.end() if block is None else turn.feed(block)
            await self._before_sending(turn, block, pieces)
            self._withheld += pieces
            if self._can_flush(turn):
                for part in self._start():
                    yield part

    async def _consult(self, turn: TurnT) -> ReplyParts:
        """Executes the consultations of a turn; closes the reply unless the model must be asked again."""
        exchange = self._exchange
        if turn.consulting and turn.text_shown:
            exchange.metrics.text_before_consulting.inc()
        visible: list[Any] = []
        async for part in self._wait(exchange.take(turn.reply()), visible):
            yield part
        if visible[0] is None:
            self._continue_after(turn)
            return
        self._finished = True
        self._record(exchange, "answer", None)
        for part in [*self._start(final=True), *turn.closing(visible[0])]:
            yield part

    async def _wait(self, work: Awaitable[T], result: list[T]) -> ReplyParts:
        """Yields the head and comments while `work` runs, and appends its result to `result`."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=self._exchange.settings.keepalive))[0]:
                for part in [*self._start(), KEEPALIVE]:
                    yield part
            result.append(task.result())
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _start(self, *, final: bool = False) -> list[ReplyHead | bytes]:
        """Returns the head, if it was not sent, and the withheld bytes, if they can be sent."""
        parts: list[ReplyHead | bytes] = []
        if not self._head_sent:
            self._head_sent = True
            parts.append(ReplyHead(200, self._exchange.headers(final=final), self._upstream_headers))
        if self._withheld and (final or self._turn is None or self._can_flush(self._turn)):
            parts.append(b"".join(self._withheld))
            self._withheld = []
        return parts
