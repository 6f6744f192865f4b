"""A streamed Chat Completion through the gateway: one role, one finish, all tokens counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from agent.endpoint import add_usage
from agent.episode import Message
from agent.errors import RulesError
from agent.gateway.exchange import Exchange, extra_headers
from agent.gateway.protocols.chat import (
    PATH,
    Recorder,
    chat_without_rules,
    error_event,
    read_whole,
    said,
    settled,
)
from agent.gateway.protocols.chat_turn import StreamedTurn
from agent.gateway.wire import (
    DONE,
    KEEPALIVE,
    ReplyHead,
    ReplyParts,
    Upstream,
    UpstreamError,
    error_body,
    event_data,
    format_event,
    returned_headers,
    split_events,
)

T = TypeVar("T")


class StreamedChat:
    """One streamed reply. The head waits until something is shown, so that it can say what was consulted."""

    def __init__(self, exchange: Exchange, upstream: Upstream, record: Recorder) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._record = record
        self._given: dict[str, str] = {}
        self._opening: dict[str, Any] | None = None
        self._early: list[bytes] = []
        self._begun = False

    async def parts(self) -> ReplyParts:
        """Head and bytes, until the model has said all."""
        try:
            turn: StreamedTurn | None = None
            while turn is None or turn.consulting:
                outcome: list[StreamedTurn | list[ReplyHead | bytes] | None] = []
                async for part in self._turn(outcome):
                    yield part
                (found,) = outcome
                if isinstance(found, list):  # a whole reply where a stream was asked for, or an error
                    for part in found:
                        yield part
                    return
                if (turn := found) is None or not turn.consulting:
                    continue
                if turn.failed:  # the caller was told: what was called in it is not known to be whole
                    self._exchange.upstream_failed("broken_off", "the upstream broke off its reply")
                    self._record(self._exchange, None, "error")
                    break
                self._opening = turn.opening
                shown: list[Message | None] = []
                async for part in self._consult(turn, shown):
                    yield part
                if shown[0] is not None:
                    self._record(self._exchange, shown[0], "answer")
                    for part in [*self._begin(final=True), *self._closing(turn, shown[0])]:
                        yield part
                    return
            for part in self._begin(final=True):
                yield part
            if turn.failed and turn.consulting:  # its own end was withheld
                yield DONE
        except RulesError as error:
            self._exchange.rules_failed(error)
            for part in chat_without_rules(
                self._exchange, self._record, begun=self._begun, opening=self._opening
            ):
                yield part
        except UpstreamError as error:
            self._exchange.upstream_failed(error.type, str(error))
            self._record(self._exchange, None, "error")
            if self._begun:
                yield error_event(str(error), error.type)
                yield DONE
                return
            headers = {"content-type": "application/json", **self._exchange.headers(final=True)}
            yield ReplyHead(error.status, headers)
            yield error_body(str(error), error.type)

    async def _turn(
        self, outcome: list[StreamedTurn | list[ReplyHead | bytes] | None]
    ) -> AsyncIterator[ReplyHead | bytes]:
        """Ask once. The outcome is the turn; or a whole answer; or None when a whole reply consulted."""
        exchange = self._exchange
        body = exchange.next_body()
        async with self._upstream.ask(
            "POST", PATH, exchange.asked.headers, body, exchange.asked.query
        ) as response:
            self._given = returned_headers(response.headers.items())
            if response.status_code != 200 or "event-stream" not in self._given.get("content-type", ""):
                text = await read_whole(response)
                answer = await settled(exchange, response.status_code, self._given, text, self._record)
                if answer is not None and self._begun:
                    why = f"the upstream answered {response.status_code} in place of a stream"
                    answer = [error_event(why, "upstream_error"), DONE]
                outcome.append(answer)
                return
            turn = StreamedTurn(
                exchange.tool_name,
                opening=self._opening,
                spent=exchange.spent,
                hold=exchange.settings.hold,
            )
            events = split_events(response.aiter_bytes())
            block: bytes | None = b""
            while block is not None:
                found: list[bytes | None] = []
                if turn.waiting:
                    async for line in kept_alive(anext(events, None), exchange.settings.keepalive, found):
                        for part in [*self._begin(), line]:
                            yield part
                else:
                    found.append(await anext(events, None))
                (block,) = found
                pieces = turn.end() if block is None else turn.feed(block)
                ended = block is None or turn.failed or event_data(block).strip() == "[DONE]"
                if (ended or (turn.finished and turn.is_counted(exchange.asked))) and not turn.consulting:
                    # Before the terminal event: a caller that has all of it may leave at once.
                    await self._note(turn)
                    if block is not None and exchange.consulted and event_data(block).strip() == "[DONE]":
                        pieces.insert(-1, said(exchange))
                if self._begun:
                    if pieces:
                        yield b"".join(pieces)
                    continue
                self._early += pieces
                if turn.shown:
                    for part in self._begin():
                        yield part
        if turn.consulting and not turn.finished:
            raise UpstreamError(502, "broken_off", "the upstream broke off its reply in the middle of a call")
        outcome.append(turn)

    async def _consult(
        self, turn: StreamedTurn, shown: list[Message | None]
    ) -> AsyncIterator[ReplyHead | bytes]:
        """Carry out what a turn asks of the rules."""
        exchange = self._exchange
        exchange.counters.text_before_consulting += turn.text_shown
        data = turn.data()
        choice = data["choices"][0]
        taking = exchange.take(
            choice["message"], choice.get("finish_reason"), data.get("usage"), data.get("model")
        )
        async for line in kept_alive(taking, exchange.settings.keepalive, shown):
            for part in [*self._begin(), line]:
                yield part

    async def _note(self, turn: StreamedTurn) -> None:
        """Record a turn that is shown as it came, once."""
        exchange = self._exchange
        if exchange.recorded:
            return
        data = turn.data()
        choice = data["choices"][0] if data["choices"] else {}
        message = choice.get("message")
        await exchange.take(message or {}, choice.get("finish_reason"), data.get("usage"), data.get("model"))
        whole = turn.finished and not turn.failed and message is not None
        if not whole:
            exchange.upstream_failed("broken_off", "the upstream broke off its reply")
        self._record(exchange, message, "answer" if whole else "error")

    def _begin(self, *, final: bool = False) -> list[ReplyHead | bytes]:
        """The head and what waited for it; nothing when they went out before."""
        if self._begun:
            return []
        self._begun = True
        head = ReplyHead(200, extra_headers(self._given, self._exchange.headers(final=final)))
        return [head, b"".join(self._early)]

    def _closing(self, turn: StreamedTurn, message: Message) -> list[bytes]:
        """The end of a reply whose last turn called the rule tool and something else."""
        base = {k: v for k, v in (self._opening or {}).items() if k not in ("choices", "usage")}

        def chunk(delta: dict[str, Any], finish: str | None) -> bytes:
            return format_event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        pieces = [chunk({"tool_calls": [entry]}, None) for entry in turn.unsent_calls()]
        pieces.append(chunk({}, "tool_calls" if message.get("tool_calls") else "stop"))
        if turn.usage_event is not None:
            usage = add_usage(self._exchange.spent, turn.usage_event["usage"])
            pieces.append(format_event({**base, "choices": [], "usage": usage}))
        return [*pieces, said(self._exchange), DONE]


async def kept_alive(work: Awaitable[T], interval: float, result: list[T]) -> AsyncIterator[bytes]:
    """Comment lines, one every `interval` seconds, until `work` is done; its result goes into `result`."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=interval))[0]:
            yield KEEPALIVE
        result.append(task.result())
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
