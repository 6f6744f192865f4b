"""A caller's library that asks again: what an earlier try found out is taken over, not done twice.

A try that ended without reaching its caller (it left, or was sent an error that libraries retry) leaves its
hidden turns and consultations behind for a while. The same request, sent again by the same caller, goes on
from there. While the earlier try still runs, the later one waits for it, and a whole reply is then given to
both.

Which request is one sent again: one with an `Idempotency-Key` that came before, or with the retry count that
OpenAI's libraries send (`coalesce="marked"`); or any equal request (`equal`), which is wrong for callers that
sample several answers to one prompt.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.episode import digest_of
from agent.gateway.wire import ReplyHead

if TYPE_CHECKING:
    from agent.gateway.exchange import Exchange
    from agent.gateway.settings import Settings
    from agent.gateway.wire import CallerRequest

_MOST = 256  # tries that are remembered
_MOST_BYTES = 64 * 1024 * 1024  # of their requests
_MOST_REPLY = 4 * 1024 * 1024  # bytes of a reply that is given to a second caller
_NOTICE = 1.0  # seconds within which a caller's leaving is noticed
_RETRIED = frozenset({408, 409, 429})


@dataclass(eq=False)
class Attempt:
    """One request being answered."""

    key: str
    exchange: Exchange
    reply: list[ReplyHead | bytes] = field(default_factory=list)
    """What it was answered with; empty unless it was sent whole, with someone waiting for it."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: bool = False
    ended_at: float = 0.0
    waiting: int = 0
    _size: int = 0

    def note(self, part: ReplyHead | bytes) -> None:
        """Take note of what the caller is sent."""
        if isinstance(part, ReplyHead):
            self.delivered = part.status < 500 and part.status not in _RETRIED
            self.reply = []
        self._size += 0 if isinstance(part, ReplyHead) else len(part)
        if self._size <= _MOST_REPLY and not self.exchange.asked.streams:
            self.reply.append(part)


class RepeatedRequests:
    """A bounded memory of tries; requests that are never sent again cost it next to nothing."""

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.coalesce
        self._window = settings.coalesce_window
        self._running: dict[str, list[Attempt]] = {}
        self._left: OrderedDict[Attempt, None] = OrderedDict()
        self._bytes = 0

    async def begin(self, exchange: Exchange, path: str) -> tuple[Attempt, Attempt | None]:
        """Note that a request is being answered; the try that it goes on from, if it is one sent again."""
        attempt = Attempt(_key(exchange.asked, path), exchange)
        if self._mode == "off":
            return attempt, None
        earlier = await self._earlier(attempt.key) if self._is_again(exchange.asked) else None
        self._running.setdefault(attempt.key, []).append(attempt)
        return attempt, earlier

    def end(self, attempt: Attempt) -> None:
        """Note that no more is sent; a try that did not reach its caller is kept for a later one."""
        running = self._running.get(attempt.key, [])
        if attempt in running:
            running.remove(attempt)
            if not running:
                del self._running[attempt.key]
            attempt.ended_at = time.monotonic()
            if not attempt.delivered and attempt.exchange.has_found_out:
                self._left[attempt] = None
                self._bytes += len(attempt.exchange.asked.raw)
            self._forget_old()
        attempt.over.set()

    def _is_again(self, asked: CallerRequest) -> bool:
        if self._mode == "equal" or asked.headers.get("idempotency-key"):
            return True
        count = asked.headers.get("x-stainless-retry-count", "0")
        return count.isdecimal() and int(count) > 0

    async def _earlier(self, key: str) -> Attempt | None:
        self._forget_old()
        if (left := self._taken(key)) is not None:
            return left
        running = list(self._running.get(key, ()))
        if not running:
            return None
        # Of several equal requests under way, the one that was sent again is the one whose caller leaves.
        patience = None if len(running) == 1 else _NOTICE
        overs = [asyncio.ensure_future(attempt.over.wait()) for attempt in running]
        for attempt in running:
            attempt.waiting += 1
        try:
            await asyncio.wait(overs, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for attempt, over in zip(running, overs, strict=True):
                attempt.waiting -= 1
                over.cancel()
        if (left := self._taken(key)) is not None:
            return left
        return running[0] if len(running) == 1 and running[0].delivered and running[0].reply else None

    def _taken(self, key: str) -> Attempt | None:
        found = next((attempt for attempt in self._left if attempt.key == key), None)
        if found is not None:
            self._drop(found)
        return found

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self._window
        while self._left and (
            len(self._left) > _MOST or self._bytes > _MOST_BYTES or next(iter(self._left)).ended_at < oldest
        ):
            self._drop(next(iter(self._left)))

    def _drop(self, attempt: Attempt) -> None:
        del self._left[attempt]
        self._bytes -= len(attempt.exchange.asked.raw)


def _key(asked: CallerRequest, path: str) -> str:
    return digest_of([asked.caller, path, asked.headers.get("idempotency-key"), asked.query, asked.digest])
