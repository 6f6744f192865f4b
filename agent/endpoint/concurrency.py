"""How many requests may be under way at once, found out from what the endpoint refuses.

Nothing is limited until the endpoint says that it is too much (429). Then the number is lowered step by step
until it is borne, at most once a second, because many endpoints count by the second; from there it is raised
again, with care near what was last refused. A little too much costs a few refusals; too little costs time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

_LOWERED = (0.5, 0.95)
"""What remains of the number at least and at most when it is lowered."""
_PAUSE = 1.0
"""Seconds between two lowerings."""
_NEAR = 0.9
"""Fraction of a refused number above which growth is careful."""
_CAREFUL = 0.5
"""Growth by a round of replies near a refused number; elsewhere it is 1."""


class ConcurrencyLimiter:
    """`async with gate:` around each request, its retries included; `granted` or `refused` after each try.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit: float | None = None
        """Most requests at once; None while nothing was ever refused."""
        self.clock = clock
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lowered_at = -math.inf
        self._refused_at = 0.0
        self._granted = self._refused = 0

    async def __aenter__(self) -> None:
        """Wait for a place."""
        if self._is_full() or self._waiting:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except BaseException:
                if place.done() and not place.cancelled():
                    self._leave()
                elif place in self._waiting:  # one who left a moment ago may have passed over it
                    self._waiting.remove(place)
                raise
        else:
            self._under_way += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def granted(self) -> None:
        """A request was answered."""
        self._granted += 1
        if self.limit is not None:
            near = self.limit > _NEAR * self._refused_at
            self.limit += (_CAREFUL if near else 1.0) / self.limit
            self._admit()

    def refused(self, sent_at: float) -> None:
        """A request that was sent at this time of the clock was too much."""
        now = self.clock()
        self._refused += 1
        # What was sent before the last lowering says nothing about the number since then.
        if sent_at < self._lowered_at or now - self._lowered_at < _PAUSE:
            return
        self._lowered_at = now
        self._refused_at = self._under_way if self.limit is None else self.limit
        # By the share that was refused since the last lowering: a little too much is lowered a little.
        share = self._granted / (self._granted + self._refused)
        self.limit = max(1.0, self._refused_at * min(max(share, _LOWERED[0]), _LOWERED[1]))
        self._granted = self._refused = 0

    def _is_full(self) -> bool:
        return self.limit is not None and self._under_way >= int(self.limit)

    def _leave(self) -> None:
        self._under_way -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._is_full():
            place = self._waiting.popleft()
            if not place.done():
                self._under_way += 1
                place.set_result(None)
