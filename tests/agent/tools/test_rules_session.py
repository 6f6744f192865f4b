"""One MCP session serves many consultations, and the failure of one consultation affects no other.

The tests also hold what the client relies on in the SDK: a pinned revision needs no request to open, the
caller's context reaches the HTTP client, and a cancellation ends one request.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED
from starlette.responses import Response

from agent.errors import RulesError
from agent.tools import RulesClient
from agent.tools.rules_session import SharedSession
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules

ROOT = Path(__file__).resolve().parents[3]
STATELESS = b"2026-07-28"
CONSULT = """
import asyncio, sys
from agent.tools import RulesClient

async def main():
    async with RulesClient(sys.argv[1]) as client:
        before = set(sys.modules)
        await client.consult({"situation": "gun"})
        packages = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(packages - sys.stdlib_module_names - {"anyio"}))

asyncio.run(main())
"""
"""Prints the packages that the first consultation of a process imports, without anyio's small backend."""


class Recorder:
    """ASGI middleware that records the MCP method of each request and first sends `refusals` as answers."""

    def __init__(self, app: Any, *, older: bool = False) -> None:
        """`older` imitates a server that only knows revisions with sessions."""
        self.app, self.older = app, older
        self.methods: list[str] = []
        self.refusals: list[Response] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self.methods.append(headers.get(b"mcp-method", scope["method"].encode()).decode())
        if self.older and headers.get(b"mcp-protocol-version") == STATELESS:
            await Response("unsupported protocol version", 400)(scope, receive, send)
        elif self.refusals:
            await self.refusals.pop(0)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def consult(client: RulesClient, situation: str = "gun") -> str:
    return (await client.consult({"situation": situation})).text


def test_each_consultation_takes_one_request() -> None:
    rules = ScriptedRules()
    app = Recorder(rules.app)

    async def many() -> None:
        async with RulesClient(f"{server.origin}/mcp") as client:
            await client.tool()
            negotiation = len(app.methods)
            await asyncio.gather(*(consult(client, f"s{n}") for n in range(20)))
            assert app.methods[negotiation:] == ["tools/call"] * 20

    with LiveServer(app) as server:
        asyncio.run(many())
    assert len(rules.consultations) == 20


def test_a_refused_negotiation_is_repeated_later() -> None:
    app = Recorder(ScriptedRules().app)
    app.refusals = [Response("busy", 503)]

    async def several() -> None:
        async with RulesClient(f"{server.origin}/mcp") as client:
            await client.tool()
            await client.tool()
            before = len(app.methods)
            await consult(client)
            assert app.methods[before:] == ["tools/call"]

    with LiveServer(app) as server:
        asyncio.run(several())


def test_the_first_consultation_of_a_process_does_not_wait_for_an_import() -> None:
    with ScriptedRules() as rules:
        command = [sys.executable, "-c", CONSULT, rules.url]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("stateless", [True, False])
def test_a_service_of_an_older_protocol_revision_is_consulted(stateless: bool) -> None:
    rules = ScriptedRules()
    app = rules._server().streamable_http_app(stateless_http=stateless, json_response=True)

    async def many() -> None:
        async with RulesClient(f"{server.origin}/mcp") as client:
            await client.tool()
            texts = await asyncio.gather(*(consult(client, f"s{n}") for n in range(5)))
            assert all("[weapons.making]" in text for text in texts)

    with LiveServer(Recorder(app, older=True)) as server:
        asyncio.run(many())
    assert len(rules.consultations) == 5


def test_a_failed_connection_fails_no_other_consultation(monkeypatch: pytest.MonkeyPatch) -> None:
    send = httpx2.AsyncHTTPTransport.handle_async_request

    async def refuse_some(self: Any, request: httpx2.Request) -> httpx2.Response:
        if b"refused" in request.content:
            raise httpx2.ConnectError("connection refused")
        return await send(self, request)

    async def three() -> list[Any]:
        async with RulesClient(rules.url, waits=()) as client:
            await client.tool()
            return await asyncio.gather(
                *(consult(client, situation) for situation in ("a", "refused", "b")), return_exceptions=True
            )

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", refuse_some)
    with ScriptedRules(delay=0.3) as rules:
        first, refused, last = asyncio.run(three())
    assert isinstance(refused, RulesError)
    assert refused.type == "unreachable"
    assert "[weapons.making]" in first
    assert "[weapons.making]" in last


def test_a_cancelled_consultation_ends_at_once_and_cancels_no_other() -> None:
    async def two() -> str:
        async with RulesClient(rules.url) as client:
            await client.tool()
            other, cancelled = (asyncio.create_task(consult(client, name)) for name in ("a", "b"))
            await asyncio.sleep(0.2)
            start = asyncio.get_running_loop().time()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert asyncio.get_running_loop().time() - start < 0.5
            return await other

    with ScriptedRules(delay=1.0) as rules:
        assert "[weapons.making]" in asyncio.run(two())


@pytest.mark.parametrize("status", [429, 503])
def test_a_consultation_waits_as_long_as_the_service_asks(status: int) -> None:
    app = Recorder(ScriptedRules().app)

    async def one() -> str:
        async with RulesClient(f"{server.origin}/mcp") as client:
            await client.tool()
            app.refusals = [Response("busy", status, {"retry-after": "0"}) for _ in range(3)]
            return await consult(client)

    with LiveServer(app) as server:
        assert "[weapons.making]" in asyncio.run(one())


@pytest.mark.parametrize(
    ("status", "headers", "type"),
    [(429, {"retry-after": "60"}, "http_429"), (503, {}, "http_503"), (401, {}, "unauthorized")],
)
@pytest.mark.parametrize("at_first", [True, False])
def test_a_refused_consultation_is_reported_with_its_cause(
    at_first: bool, status: int, headers: dict[str, str], type: str
) -> None:
    app = Recorder(ScriptedRules().app)

    async def one() -> None:
        async with RulesClient(f"{server.origin}/mcp") as client:
            if not at_first:
                await client.tool()
            app.refusals = [Response("no", status, headers) for _ in range(9)]
            await consult(client)

    with LiveServer(app) as server, pytest.raises(RulesError, match=str(status)) as caught:
        asyncio.run(one())
    assert caught.value.type == type


def test_a_session_that_closed_is_replaced_and_its_other_users_finish() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        number = sum(event.startswith("open") for event in events)
        events.append(f"open {number}")
        yield number
        events.append(f"close {number}")

    async def fail(session: SharedSession) -> None:
        async with session.use():
            raise MCPError(CONNECTION_CLOSED, "connection closed")

    async def overlapping() -> None:
        session = SharedSession(connect)
        async with session.use() as first:
            with pytest.raises(MCPError):
                await fail(session)
            async with session.use() as second:
                assert [first, second] == [0, 1]
            assert events == ["open 0", "open 1"]
        assert events == ["open 0", "open 1", "close 0"]
        await session.close()
        assert events[-1] == "close 1"

    asyncio.run(overlapping())


def test_a_session_that_cannot_open_fails_its_users_and_the_next_one_opens() -> None:
    attempts = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("no")
        yield attempts

    async def two() -> None:
        session = SharedSession(connect)
        with pytest.raises(OSError, match="no"):
            async with session.use():
                pass
        async with session.use() as client:
            assert client == 2
        await session.close()

    asyncio.run(two())
