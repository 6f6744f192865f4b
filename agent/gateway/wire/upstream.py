"""The model's API behind the gateway: requests and replies passed on as bytes."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agent.gateway.settings import Settings

if TYPE_CHECKING:
    import httpx2

_IDLE = 60.0  # seconds after which an unused connection is closed
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
# Set anew for the bytes that are really sent; compression would hide the events of a stream.
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", "accept-encoding", "expect"}
_NOT_RETURNED = _HOP_BY_HOP | {"content-length", "content-encoding", "date", "server"}


class UpstreamError(Exception):
    """The upstream gave no answer, or broke it off: `status` for the caller, `type` and a sentence."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type


class Upstream:
    """Use as an async context manager; requests may run at once.

    Every request under way has a client of its own, and the one used last is used next, so that few
    connections are kept busy: a client with many connections looks at all of them for every request.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[tuple[float, httpx2.AsyncClient]] = []
        """With the time at which each was last used, the longest ago first."""
        self._trusted: Any = None

    async def __aenter__(self) -> Upstream:
        import httpx2

        self._trusted = httpx2.create_ssl_context()
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
            verify=self._trusted,
            # One caller's cookies are not another's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, query: str = ""
    ) -> AsyncIterator[httpx2.Response]:
        """The open reply to a request; leaving the block ends it, finished or not.

        Raises:
            UpstreamError: when there is no reply, also while it is being read.
        """
        import httpx2

        client = self._client()
        # As bytes: what a caller wrote into a header need not be ASCII.
        sent = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        request = client.build_request(
            method,
            self._settings.address(path, query),
            headers=[*sent, (b"accept-encoding", b"identity")],
            content=body,
        )
        try:
            response = await client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx2.TimeoutException as error:
            raise UpstreamError(
                504,
                "upstream_timeout",
                f"the upstream {self._settings.public_upstream} was silent for {self._settings.timeout:g} s",
            ) from error
        except httpx2.HTTPError as error:
            raise UpstreamError(
                502,
                "upstream_unreachable",
                f"the upstream {self._settings.public_upstream} gave no whole answer ({error})",
            ) from error
        finally:
            self._idle.append((time.monotonic(), client))
            await self._close_idle(_IDLE)

    async def _close_idle(self, seconds: float) -> None:
        """Close what was not used for so long; what a busy minute needed is not kept for good."""
        while self._idle and time.monotonic() - self._idle[0][0] > seconds:
            await self._idle.pop(0)[1].aclose()


def forwarded_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The caller's headers that the upstream is sent, the key among them."""
    return {name: value for name, value in headers if name.lower() not in _NOT_FORWARDED}


def returned_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The upstream's headers that the caller is sent."""
    return {name: value for name, value in headers if name.lower() not in _NOT_RETURNED}
