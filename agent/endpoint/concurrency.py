"""Adapts the number of concurrent requests to the endpoint (additive increase, multiplicative decrease).

There is no limit until the endpoint answers 429. The limit is then lowered step by step until the endpoint
accepts the load, at most once per second, because many endpoints limit requests per second. From there it
rises again, more slowly near the last refused number. Slightly too much costs a few refusals; too little
costs time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

_DECREASE_RANGE = (0.5, 0.95)
"""Smallest and largest factor by which the limit is multiplied when it is lowered."""
_DECREASE_INTERVAL = 1.0
"""Minimum number of seconds between two decreases."""
_NEAR = 0.9
"""Fraction of the last refused number above which the limit grows slowly."""
_SLOW_GROWTH = 0.5
"""Growth for each round of replies near the last refused number; elsewhere it is 1."""


class ConcurrencyLimiter:
    """Limits concurrent requests: `async with limiter:` around each request, including its retries.

    Call `granted` or `refused` after each attempt.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit: float | None = None
        """Maximum number of concurrent requests; None until the endpoint refuses one."""
        self.clock = clock
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lowered_at = -math.inf
        self._refused_limit = 0.0
        self._granted = self._refused = 0

    async def __aenter__(self) -> None:
        """Waits for a slot."""
        if self._is_full() or self._waiting:
            slot = asyncio.get_running_loop().create_future()
            self._waiting.append(slot)
            try:
                await slot
            except BaseException:
                if slot.done() and not slot.cancelled():
                    self._release()
                elif slot in self._waiting:  # a request that ended a moment ago may have removed it
                    self._waiting.remove(slot)
                raise
        else:
            self._active += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def granted(self) -> None:
        """Records a request that the endpoint answered."""
        self._granted += 1
        if self.limit is not None:
            near = self.limit > _NEAR * self._refused_limit
            self.limit += (_SLOW_GROWTH if near else 1.0) / self.limit
            self._admit()

    def refused(self, sent_at: float) -> None:
        """Records a request that the endpoint refused with 429; `sent_at` is its time on the clock."""
        now = self.clock()
        self._refused += 1
        # A request sent before the last decrease says nothing about the current limit.
        if sent_at < self._lowered_at or now - self._lowered_at < _DECREASE_INTERVAL:
            return
        self._lowered_at = now
        self._refused_limit = self._active if self.limit is None else self.limit
        # In proportion to the refusals since the last decrease: few refusals lower the limit a little.
        share = self._granted / (self._granted + self._refused)
        self.limit = max(1.0, self._refused_limit * min(max(share, _DECREASE_RANGE[0]), _DECREASE_RANGE[1]))
        self._granted = self._refused = 0

    def _is_full(self) -> bool:
        return self.limit is not None and self._active >= int(self.limit)

    def _release(self) -> None:
        self._active -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._is_full():
            slot = self._waiting.popleft()
            if not slot.done():
                self._active += 1
                slot.set_result(None)
