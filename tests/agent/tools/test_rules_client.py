"""The client of the rule service, over real MCP."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from mcp.server import MCPServer
from starlette.responses import Response

from agent.errors import RulesError
from agent.tools import RulesClient
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import DIGEST, ScriptedRules

T = TypeVar("T")


def use(url: str, ask: Callable[[RulesClient], Awaitable[T]], waits: tuple[float, ...] = ()) -> T:
    async def session() -> T:
        async with RulesClient(url, waits=waits) as client:
            return await ask(client)

    return asyncio.run(session())


def test_the_rule_tool_is_offered_in_the_form_of_chat_completions() -> None:
    with ScriptedRules() as rules:
        tool = use(rules.url, lambda client: client.tool())
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "consult_safety_rules"
    assert "safety rules" in tool["function"]["description"]
    assert tool["function"]["parameters"]["required"] == ["situation"]


def test_the_rulebook_is_known_by_its_digest() -> None:
    with ScriptedRules() as rules:
        rulebook = use(rules.url, lambda client: client.rulebook())
    assert rulebook == {"name": "scripted", "version": "1", "digest": DIGEST}


def test_a_consultation_gives_text_for_the_model_and_the_same_as_data() -> None:
    with ScriptedRules() as rules:
        result = use(rules.url, lambda client: client.consult({"situation": "gun", "top_k": 1}))
    assert "[weapons.making]" in result.text
    assert result.structured is not None
    assert result.structured["verdict"] == "rules_found"
    assert not result.is_error
    assert rules.consultations == [{"situation": "gun", "categories": None, "top_k": 1}]


def test_many_consultations_may_be_under_way_at_once() -> None:
    async def many(client: RulesClient) -> list[str]:
        results = await asyncio.gather(*(client.consult({"situation": f"s{n}"}) for n in range(24)))
        return [result.text for result in results]

    with ScriptedRules() as rules:
        texts = use(rules.url, many)
    assert len(texts) == len(rules.consultations) == 24


def test_a_service_that_restarts_is_asked_again() -> None:
    async def restart(client: RulesClient) -> None:
        await client.consult({"situation": "before"})
        await asyncio.to_thread(first.stop)
        with pytest.raises(RulesError, match="cannot be reached"):
            await client.consult({"situation": "between"})
        second = ScriptedRules(port=first.port)
        with second:
            await client.consult({"situation": "after"})
        assert [c["situation"] for c in second.consultations] == ["after"]

    with ScriptedRules() as first:
        use(first.url, restart)


class Overloaded:
    """ASGI middleware that refuses the first requests."""

    def __init__(self, app: Any, refusals: int, status: int, headers: dict[str, str]) -> None:
        self.app, self.refusals, self.status, self.headers = app, refusals, status, headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self.refusals == 0:
            await self.app(scope, receive, send)
            return
        self.refusals -= 1
        await Response("busy", self.status, self.headers)(scope, receive, send)


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_to_wait_is_queried_again(status: int) -> None:
    app = Overloaded(ScriptedRules().app, 3, status, {"retry-after": "0"})
    with LiveServer(app) as server:
        result = use(f"{server.origin}/mcp", lambda client: client.consult({"situation": "gun"}))
    assert not result.is_error
    assert app.refusals == 0


def test_an_overloaded_service_is_reported_with_the_status_and_the_wait() -> None:
    app = Overloaded(ScriptedRules().app, 1000, 429, {"retry-after": "60"})
    with (
        LiveServer(app) as server,
        pytest.raises(RulesError, match="answered 429 and asked to wait 60 s") as caught,
    ):
        use(f"{server.origin}/mcp", lambda client: client.consult({"situation": "gun"}))
    assert caught.value.type == "http_429"
    assert not caught.value.setup


def test_a_service_that_is_not_there_is_named_with_the_remedy() -> None:
    with pytest.raises(RulesError, match="ascl-rules serve") as caught:
        use(f"{CLOSED_URL}/mcp", lambda client: client.rulebook(), waits=(0.01, 0.01))
    assert caught.value.type == "unreachable"


@pytest.mark.parametrize(
    "answer", [Raw(404, "Not Found"), Raw(200, "<html></html>", content_type="text/html")]
)
def test_a_url_without_an_mcp_service_is_reported(answer: Raw) -> None:
    with ScriptedEndpoint(otherwise=answer) as web:
        with pytest.raises(RulesError, match="returned no MCP answer") as caught:
            use(f"{web.base_url}/chat/completions", lambda client: client.rulebook())
        assert caught.value.setup


def test_an_mcp_service_without_rules_is_named() -> None:
    app = MCPServer("other", log_level="ERROR").streamable_http_app(stateless_http=True, json_response=True)
    with LiveServer(app) as other:
        with pytest.raises(RulesError, match="rulebook"):
            use(f"{other.origin}/mcp", lambda client: client.rulebook())
        with pytest.raises(
            RulesError, match=r"does not offer the tool consult_safety_rules \(it offers: none\)"
        ):
            use(f"{other.origin}/mcp", lambda client: client.tool())


def test_an_invalid_url_is_rejected() -> None:
    with pytest.raises(RulesError):
        use("not an address", lambda client: client.rulebook())
