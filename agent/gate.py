"""How many requests may be under way at once, found out from what the endpoint refuses.

Nothing is limited until the endpoint says that it is too much (429). Then the number is halved until it is
borne, and from there on gently raised and lowered around what was last refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

_NEAR = 0.9
"""Fraction of a refused number that is taken to be borne, and near which growth is careful."""
_CAREFUL = 0.25
"""Growth by a round of replies near a refused number; elsewhere it is 1."""


class Gate:
    """`async with gate:` around each request, its retries included; `granted` or `refused` after each try."""

    def __init__(self) -> None:
        self.limit: float | None = None
        """Most requests at once; None while nothing was ever refused."""
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._round = 0
        self._refused_at = 0.0
        self._granted = 0

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
                else:
                    self._waiting.remove(place)
                raise
        else:
            self._under_way += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def round(self) -> int:
        """Counts the times that the limit was lowered; a request tells `refused` in which it was sent."""
        return self._round

    def granted(self) -> None:
        """A request was answered."""
        self._granted += 1
        if self.limit is not None:
            near = self.limit > _NEAR * self._refused_at
            self.limit += (_CAREFUL if near else 1.0) / self.limit
            self._admit()

    def refused(self, sent_in: int) -> None:
        """A request that was sent in this round was too much."""
        if sent_in != self._round:
            return  # the others of the same crowd were told already
        self._round += 1
        self._refused_at = self._under_way if self.limit is None else self.limit
        borne = self.limit is not None and self._granted >= self.limit
        self.limit = max(1.0, self._refused_at * (_NEAR if borne else 0.5))
        self._granted = 0

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
