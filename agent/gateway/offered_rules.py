"""The rule service as the gateway offers it: the tool is read once and kept fresh without delaying anyone."""

from __future__ import annotations

import asyncio
import time

from agent.errors import RulesError
from agent.machine import Offer
from agent.rules_client import RulesClient

_FRESH = 30.0  # seconds that a tool and digest are offered before they are read again
_AFTER_ERROR = 2.0  # seconds before a service that did not answer is asked for its tool again


class OfferedRules:
    """The tool and the rulebook's digest, with what went wrong when they could not be had."""

    def __init__(self, client: RulesClient) -> None:
        self.client = client
        self._offer: Offer | None = None
        self._error: RulesError | None = None
        self._until = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def offer(self) -> Offer:
        """What to offer now; an offer that is old is still given while a newer one is read.

        Raises:
            RulesError: when the service has never answered.
        """
        if time.monotonic() >= self._until and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read())
        if self._offer is None and self._reading is not None:
            await asyncio.shield(self._reading)
        if self._offer is None:
            raise self._error or RulesError("the rule service has not answered yet", type="unreachable")
        return self._offer

    async def close(self) -> None:
        """End what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            digest = (await self.client.rulebook())["digest"]
            self._offer, self._error = Offer(await self.client.tool(), digest), None
            self._until = time.monotonic() + _FRESH
        except RulesError as error:
            self._error = error
            self._until = time.monotonic() + _AFTER_ERROR
