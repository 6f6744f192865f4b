"""Repeated requests: a retry resumes the consultations of the previous attempt.

An attempt fails to reach its caller if the caller disconnects, or gets an error that libraries retry. Its
hidden turns and consultations are kept for a while, and the same request of the same caller resumes from
them. While the first attempt still runs, the retry waits for it, and both get a whole reply.

A request counts as repeated if it carries an `Idempotency-Key` that was used before, or the retry count that
OpenAI's libraries send (`coalesce="marked"`). With `equal`, any equal request does, which is wrong for
callers that sample several answers to one prompt.
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

_MAX_ATTEMPTS = 256
_MAX_BYTES = 64 * 1024 * 1024  # of the requests of all attempts
_MAX_REPLY_BYTES = 4 * 1024 * 1024  # of a reply that a second caller can get
_DISCONNECT_DELAY = 1.0  # seconds within which a caller's disconnect is noticed
_RETRIED_STATUSES = frozenset({408, 409, 429})


@dataclass(eq=False)
class Attempt:
    """One request, in progress or finished."""

    key: str
    exchange: Exchange
    reply: list[ReplyHead | bytes] = field(default_factory=list)
    """The reply's parts; empty if it was streamed or is too long."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: bool = False
    """Whether the caller got a reply that it will not retry."""
    ended_at: float = 0.0
    _size: int = 0

    def add(self, part: ReplyHead | bytes) -> None:
        """Records a part of the reply to the caller."""
        if isinstance(part, ReplyHead):
            self.delivered = part.status < 500 and part.status not in _RETRIED_STATUSES
            self.reply = []
        self._size += 0 if isinstance(part, ReplyHead) else len(part)
        if self._size <= _MAX_REPLY_BYTES and not self.exchange.request.streams:
            self.reply.append(part)


class RepeatedRequests:
    """Running and failed attempts, bounded. A request that is never repeated adds almost no cost."""

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.coalesce
        self._window = settings.coalesce_window
        self._running: dict[str, list[Attempt]] = {}
        self._failed: OrderedDict[Attempt, None] = OrderedDict()
        self._bytes = 0

    async def begin(self, exchange: Exchange, path: str) -> tuple[Attempt, Attempt | None]:
        """Starts an attempt.

        Returns:
            The attempt, and the earlier attempt that it resumes; None if it repeats none.
        """
        attempt = Attempt(_key(exchange.request, path), exchange)
        if self._mode == "off":
            return attempt, None
        earlier = await self._earlier(attempt.key) if self._is_repeated(exchange.request) else None
        self._running.setdefault(attempt.key, []).append(attempt)
        return attempt, earlier

    def end(self, attempt: Attempt) -> None:
        """Ends an attempt, and keeps it for a retry if its reply did not reach the caller."""
        running = self._running.get(attempt.key, [])
        if attempt in running:
            running.remove(attempt)
            if not running:
                del self._running[attempt.key]
            attempt.ended_at = time.monotonic()
            if not attempt.delivered and attempt.exchange.resumable:
                self._failed[attempt] = None
                self._bytes += len(attempt.exchange.request.raw)
            self._drop_old()
        attempt.over.set()

    def _is_repeated(self, request: CallerRequest) -> bool:
        if self._mode == "equal" or request.header("idempotency-key"):
            return True
        count = request.header("x-stainless-retry-count") or "0"
        return count.isdecimal() and int(count) > 0

    async def _earlier(self, key: str) -> Attempt | None:
        self._drop_old()
        if (failed := self._take_failed(key)) is not None:
            return failed
        running = list(self._running.get(key, ()))
        if not running:
            return None
        # If several equal requests run, the repeated one is the one whose caller disconnects soon.
        timeout = None if len(running) == 1 else _DISCONNECT_DELAY
        ends = [asyncio.ensure_future(attempt.over.wait()) for attempt in running]
        try:
            await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        if (failed := self._take_failed(key)) is not None:
            return failed
        return running[0] if len(running) == 1 and running[0].delivered and running[0].reply else None

    def _take_failed(self, key: str) -> Attempt | None:
        failed = next((attempt for attempt in self._failed if attempt.key == key), None)
        if failed is not None:
            self._drop(failed)
        return failed

    def _drop_old(self) -> None:
        oldest = time.monotonic() - self._window
        while self._failed and (
            len(self._failed) > _MAX_ATTEMPTS
            or self._bytes > _MAX_BYTES
            or next(iter(self._failed)).ended_at < oldest
        ):
            self._drop(next(iter(self._failed)))

    def _drop(self, attempt: Attempt) -> None:
        del self._failed[attempt]
        self._bytes -= len(attempt.exchange.request.raw)


def _key(request: CallerRequest, path: str) -> str:
    idempotency_key = request.header("idempotency-key")
    return digest_of([request.caller, path, idempotency_key, request.query, request.digest])
