"""The rule service as the gateway offers it: the tool is read once and kept fresh without delaying anyone."""

from __future__ import annotations

import asyncio
import math
import time

from agent.errors import RulesError
from agent.tools import RulesClient, ToolOffer

_FRESH = 30.0  # seconds that a tool and digest are offered before they are read again
_AFTER_ERROR = 2.0  # seconds before a service that did not answer is asked for its tool again
_DEADLINE = 5.0  # seconds that it is given to answer
_PATIENCE = 0.5  # seconds that a request waits for a service that did not answer the last time


class RuleOffer:
    """The tool and the rulebook's digest, with what went wrong when they could not be had."""

    def __init__(self, client: RulesClient) -> None:
        self.client = client
        self._offer: ToolOffer | None = None
        self._error: RulesError | None = None
        self._until = 0.0
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def offer(self) -> ToolOffer:
        """What to offer now; an offer that is old is still given while a newer one is read.

        Raises:
            RulesError: when the service has never answered.
        """
        if time.monotonic() >= self._until:
            self._begin_reading()
        if self._offer is None and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=None if self._error is None else _PATIENCE)
        if self._offer is None:
            raise self._error or RulesError("the rule service has not answered yet", type="unreachable")
        return self._offer

    async def checked(self) -> ToolOffer:
        """What to offer, after asking the service whether it is there; at most every 2 seconds.

        Raises:
            RulesError: when it did not answer the last time.
        """
        if time.monotonic() >= self._read_at + _AFTER_ERROR:
            self._begin_reading()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        if self._error is not None:
            raise self._error
        return await self.offer()

    def _begin_reading(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_DEADLINE):
                digest = (await self.client.rulebook())["digest"]
                self._offer, self._error = ToolOffer(await self.client.tool(), digest), None
        except TimeoutError:
            self._error = RulesError(
                f"the rule service at {self.client.public_url} did not answer within {_DEADLINE:g} s",
                type="timeout",
            )
        except RulesError as error:
            self._error = error
        self._read_at = time.monotonic()
        self._until = self._read_at + (_FRESH if self._error is None else _AFTER_ERROR)
