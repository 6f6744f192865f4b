"""HTTP client for the model's API: forwards requests and replies as bytes."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agent.gateway.settings import Settings

if TYPE_CHECKING:
    import httpx2

RawHeaders = tuple[tuple[bytes, bytes], ...]
"""Headers as sent: bytes need not be ASCII, and a name may occur more than once."""

_MAX_IDLE = 60.0  # seconds after which an unused connection is closed
_MAX_STALE = 5.0  # seconds within which a closed idle connection shows; later the server had the request
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
# The client sets these again for the bytes that it sends. Compression would hide a stream's events.
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", "accept-encoding", "expect"}
_NOT_RETURNED = _HOP_BY_HOP | {"content-length", "content-encoding", "date", "server"}


class UpstreamError(Exception):
    """The upstream failed to send a complete reply.

    Attributes:
        status: HTTP status for the caller.
        type: short stable word for the kind of error.
    """

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type


class Upstream:
    """Client for the model's API. Use it as an async context manager; requests may run concurrently.

    Every request in progress has its own HTTP client, because a client with many connections scans all of
    them for every request. The most recently used client is reused first, so that few connections stay open.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[tuple[float, httpx2.AsyncClient]] = []
        """Idle clients with the time of their last use, oldest first."""
        self._ssl_context: Any = None

    async def __aenter__(self) -> Upstream:
        import httpx2

        self._ssl_context = httpx2.create_ssl_context()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close_idle(-math.inf)

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        if self._idle:
            return self._idle.pop()[1]
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._settings.timeout, connect=15.0, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=1),
            verify=self._ssl_context,
            # Stores no cookies: callers must not receive each other's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    @asynccontextmanager
    async def send(
        self, method: str, path: str, headers: RawHeaders, body: bytes | None = None, query: str = ""
    ) -> AsyncIterator[httpx2.Response]:
        """Sends a request and yields the open reply; leaving the block closes it, complete or not.

        Raises:
            UpstreamError: if the upstream sends no reply, or breaks it off inside the block.
        """
        import httpx2

        reused = bool(self._idle)
        client = self._client()
        request = client.build_request(
            method,
            self._settings.address(path, query),
            headers=[*headers, (b"accept-encoding", b"identity")],
            content=body,
        )
        try:
            response = await _send(client, request, reused=reused)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx2.TimeoutException as error:
            name, timeout = self._settings.public_upstream, self._settings.timeout
            message = f"the upstream {name} sent nothing for {timeout:g} s"
            raise UpstreamError(504, "upstream_timeout", message) from error
        except httpx2.HTTPError as error:
            message = f"the upstream {self._settings.public_upstream} sent no complete reply ({error})"
            raise UpstreamError(502, "upstream_unreachable", message) from error
        finally:
            self._idle.append((time.monotonic(), client))
            await self._close_idle(_MAX_IDLE)

    async def _close_idle(self, seconds: float) -> None:
        """Closes clients that were idle for `seconds`, so that a peak's connections are released."""
        while self._idle and time.monotonic() - self._idle[0][0] > seconds:
            await self._idle.pop(0)[1].aclose()


async def _send(client: httpx2.AsyncClient, request: httpx2.Request, *, reused: bool) -> httpx2.Response:
    """Sends a request, and repeats it once if the server closes the idle connection on reuse."""
    import httpx2

    start = time.monotonic()
    try:
        return await client.send(request, stream=True)
    except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
        if not reused or time.monotonic() - start > _MAX_STALE:
            raise
        return await client.send(request, stream=True)


def forwarded_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Returns the caller's headers that the upstream receives, including the key; names in lower case."""
    return _without(headers, _NOT_FORWARDED)


def returned_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Returns the upstream's headers that the caller receives, with names in lower case."""
    return _without(headers, _NOT_RETURNED)


def _without(headers: Iterable[tuple[bytes, bytes]], names: frozenset[str]) -> RawHeaders:
    lowered = ((name.lower(), value) for name, value in headers)
    return tuple((name, value) for name, value in lowered if name.decode("latin-1") not in names)
