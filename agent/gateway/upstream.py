"""The model's API behind the gateway: requests and replies passed on as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agent.gateway.settings import Settings

if TYPE_CHECKING:
    import httpx2

_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
# Set anew for the bytes that are really sent; compression would hide the events of a stream.
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", "accept-encoding", "expect"}
_NOT_RETURNED = _HOP_BY_HOP | {"content-length", "content-encoding", "date", "server"}
_POOL_SIZE = 8


class UpstreamError(Exception):
    """The upstream gave no answer, or broke it off: `status` for the caller, `type` and a sentence."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type


@dataclass
class _Pool:
    client: httpx2.AsyncClient
    under_way: int = 0


class Upstream:
    """Use as an async context manager; requests may run at once.

    Connections are kept in pools of a few: a pool looks at all of its connections for every request.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: list[_Pool] = []
        self._trusted: Any = None

    async def __aenter__(self) -> Upstream:
        import httpx2

        self._trusted = httpx2.create_ssl_context()
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            await pool.client.aclose()
        self._pools = []

    def _pool(self) -> _Pool:
        """The first pool with room, so that few connections are kept busy rather than many idle."""
        import httpx2

        for pool in self._pools:
            if pool.under_way < _POOL_SIZE:
                return pool
        client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._settings.timeout, connect=15.0, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=_POOL_SIZE),
            verify=self._trusted,
            # One caller's cookies are not another's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._pools.append(_Pool(client))
        return self._pools[-1]

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, query: str = ""
    ) -> AsyncIterator[httpx2.Response]:
        """The open reply to a request; leaving the block ends it, finished or not.

        Raises:
            UpstreamError: when there is no reply, also while it is being read.
        """
        import httpx2

        pool = self._pool()
        address = self._settings.address(path) + (f"?{query}" if query else "")
        request = pool.client.build_request(
            method, address, headers={**headers, "accept-encoding": "identity"}, content=body
        )
        pool.under_way += 1
        try:
            response = await pool.client.send(request, stream=True)
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
            pool.under_way -= 1


def forwarded(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The caller's headers that the upstream is sent, the key among them."""
    return {name: value for name, value in headers if name.lower() not in _NOT_FORWARDED}


def returned(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The upstream's headers that the caller is sent."""
    return {name: value for name, value in headers if name.lower() not in _NOT_RETURNED}
