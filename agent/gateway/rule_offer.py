"""Reads the rule tool from the rule service, and refreshes it without delaying requests."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Self

from agent.errors import RulesError
from agent.tools import RulesClient, ToolOffer

_MAX_AGE = 30.0  # seconds before the tool and the digest are read again
_RETRY_INTERVAL = 2.0  # seconds before a service that did not answer is queried again
_READ_TIMEOUT = 5.0  # seconds that the service has to answer
_MAX_WAIT = 0.5  # seconds that a request waits for a service that failed to answer last time


TURNED_OFF = "the rules are turned off"


class RuleOffer:
    """The rule tool and the rulebook's digest, or the error of the last attempt to read them.

    Args:
        client: client of the rule service, not yet entered; None if the rules are turned off.
    """

    def __init__(self, client: RulesClient | None) -> None:
        self.client = client
        self._offer: ToolOffer | None = None
        self._error: RulesError | None = None
        self._expires_at = 0.0
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self.client is not None:
            await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        if self.client is not None:
            await self.client.__aexit__(kind, value, trace)

    async def offer(self) -> ToolOffer:
        """Returns the current offer. While an expired offer is refreshed, it stays in use.

        Raises:
            RulesError: if the service has never answered.
        """
        if time.monotonic() >= self._expires_at:
            self._start_reading()
        if self._offer is None and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=None if self._error is None else _MAX_WAIT)
        if self._offer is None:
            raise self._error or RulesError("the rule service has not answered yet", type="unreachable")
        return self._offer

    async def check(self) -> ToolOffer:
        """Returns the current offer after querying the service, at most once every 2 seconds.

        Raises:
            RulesError: if the service failed to answer the last query.
        """
        if time.monotonic() >= self._read_at + _RETRY_INTERVAL:
            self._start_reading()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        if self._error is not None:
            raise self._error
        return await self.offer()

    async def _close(self) -> None:
        """Cancels a query in progress."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _start_reading(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        client = self.client
        assert client is not None
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                digest = (await client.rulebook())["digest"]
                self._offer, self._error = ToolOffer(await client.tool(), digest), None
        except TimeoutError:
            self._error = RulesError(
                f"the rule service at {client.public_url} did not answer within {_READ_TIMEOUT:g} s",
                type="timeout",
            )
        except RulesError as error:
            self._error = error
        self._read_at = time.monotonic()
        self._expires_at = self._read_at + (_MAX_AGE if self._error is None else _RETRY_INTERVAL)
