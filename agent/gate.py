"""How many requests may be under way at once, found out from what the endpoint refuses.

Nothing is limited until the endpoint says that it is too much (429). Then the number is halved, once for all
requests that were under way, and grows by one for each round of replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class Gate:
    """`async with gate:` around each request; then `granted` or `refused` says what came of it."""

    def __init__(self) -> None:
        self.limit: float | None = None
        """Most requests at once; None while nothing was ever refused."""
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rounds = 0

    async def __aenter__(self) -> int:
        """Wait for a place; the number tells `refused` when the request began."""
        if self._is_full() or self._waiting:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except BaseException:
                if place.done() and not place.cancelled():
                    self._leave()
                else:
                    self._waiting.remove(place)
                raise
        else:
            self._under_way += 1
        return self._rounds

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def granted(self) -> None:
        """A request was answered."""
        if self.limit is not None:
            self.limit += 1 / self.limit
            self._admit()

    def refused(self, began: int) -> None:
        """A request that began at `began` was too much."""
        if began != self._rounds:
            return  # the others of the same crowd were told already
        self._rounds += 1
        self.limit = max(1.0, (self._under_way if self.limit is None else self.limit) / 2)

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
