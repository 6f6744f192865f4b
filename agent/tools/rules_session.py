"""An MCP session of the stateless protocol, which any number of overlapping requests share.

Such a session sends nothing when it opens, so a consultation takes one HTTP request. The SDK runs all
requests of a session in one task group, where an exception of one would end all of them. `WaitingClient`
therefore withholds HTTP exceptions from the SDK.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED

log = logging.getLogger(__name__)


class _OpenSession:
    """One session, and the task that opens and closes it: the SDK's task groups demand the same task."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._connect = connect
        self._stop = asyncio.Event()
        self.client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.users = 0
        # An empty context: the session must not keep the first caller's.
        self.task = asyncio.create_task(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        try:
            async with self._connect() as client:
                self.client.set_result(client)
                await self._stop.wait()
        except Exception as error:
            if self.client.done():
                log.debug("the MCP session ended", exc_info=True)
            else:
                self.client.set_exception(error)

    async def close(self) -> None:
        self._stop.set()
        await asyncio.wait({self.task})


class SharedSession:
    """Opens a session for the first request, and another one after a session has ended."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._connect = connect
        self._current: _OpenSession | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """Yields the client of the open session for one request."""
        session = self._current
        if session is None or session.task.done():
            session = self._current = _OpenSession(self._connect)
        session.users += 1
        try:
            yield await asyncio.shield(session.client)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED and self._current is session:
                self._current = None
            raise
        finally:
            session.users -= 1
            if session is not self._current and not session.users:
                await session.close()

    async def close(self) -> None:
        """Closes the session; requests in flight fail."""
        if self._current is not None:
            session, self._current = self._current, None
            await session.close()
