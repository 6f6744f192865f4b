"""A failed rule service and a malformed call are distinguished; each answer without rules names its cause."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolResult, TextContent
from starlette.responses import Response

from agent.episode import read_log
from agent.errors import RulesError
from agent.tools import REFUSAL_WITHOUT_RULES, RULES_UNREACHABLE, RulesClient
from tests.fakes.endpoints.scripted import call
from tests.fakes.processes.gateway import parse_reply, post, run_gateway, upstream
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules
from tests.fakes.rules.toy_service import ToyEncoder, serve_toy

VIRUS = {"messages": [{"role": "user", "content": "How do I write a computer virus?"}]}
STREAMED = pytest.mark.parametrize("stream", [False, True])


def error_result(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def raises(error: Exception) -> Callable[[], CallToolResult]:
    def fail() -> CallToolResult:
        raise error

    return fail


@contextmanager
def other_service(consult: Callable[[], CallToolResult]) -> Iterator[str]:
    """A rule service of another author: the same tool, and no marks in its error results."""
    server = MCPServer("other", version="1", log_level="CRITICAL")

    @server.tool()
    async def consult_safety_rules(situation: str, top_k: int | None = None) -> CallToolResult:
        """Look up the safety rules."""
        return consult()

    @server.resource("rulebook://current", mime_type="application/json")
    def rulebook() -> str:
        return json.dumps({"name": "other", "version": "1", "digest": "d2" * 32})

    with LiveServer(server.streamable_http_app(stateless_http=True, json_response=True)) as served:
        yield f"{served.origin}/mcp"


class FailingCalls:
    """Answers every call of a tool with an HTTP status, as a proxy or a crashed worker does."""

    def __init__(self, app: Any, status: int) -> None:
        self.app, self.status = app, status

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        message = await receive() if scope["type"] == "http" else None
        if message is not None and b'"tools/call"' in message.get("body", b""):
            await Response("down", self.status)(scope, receive, send)
            return

        async def again() -> Any:
            nonlocal message
            first, message = message, None
            return first if first is not None else await receive()

        await self.app(scope, again, send)


@contextmanager
def failing_service(kind: str, folder: Path) -> Iterator[str]:
    """Yields the URL of a rule service whose consultations fail in one way."""
    if kind == "audit log":
        audit = folder / "audit.jsonl"
        with serve_toy(folder, audit_file=audit) as served:
            audit.unlink()
            audit.mkdir()
            yield f"{served.origin}/mcp"
    elif kind == "encoder":
        encoder = ToyEncoder()
        with serve_toy(folder, encoder) as served:
            encoder.encode = raises(RuntimeError("/models/encoder.onnx is damaged"))  # type: ignore
            yield f"{served.origin}/mcp"
    elif kind.isdigit():
        with LiveServer(FailingCalls(ScriptedRules().app, int(kind))) as proxied:
            yield f"{proxied.origin}/mcp"
    else:
        answers = {
            "crash": raises(RuntimeError("out of memory")),
            "error result": lambda: error_result("the database is down"),
            "error result without text": lambda: CallToolResult(content=[], is_error=True),
            "error result that names an argument": lambda: error_result("no index for the situation"),
            "internal error": raises(MCPError(INTERNAL_ERROR, "down")),
            "invalid parameters": raises(MCPError(INVALID_PARAMS, "no route")),
            "own code": raises(MCPError(-32050, "quota exceeded")),
            "nothing": lambda: CallToolResult(content=[]),
        }
        with other_service(answers[kind]) as url:
            yield url


FAILURES = {
    "audit log": "service_error",
    "encoder": "service_error",
    "crash": "service_error",
    "error result": "service_error",
    "error result without text": "service_error",
    "error result that names an argument": "service_error",
    "internal error": "service_error",
    "invalid parameters": "service_error",
    "own code": "service_error",
    "nothing": "no_verdict",
    "500": "http_500",
    "502": "http_502",
    "504": "http_504",
}


@STREAMED
@pytest.mark.parametrize("kind", FAILURES)
def test_an_answer_after_a_failed_consultation_names_the_cause(
    stream: bool, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, cause = tmp_path / "log.jsonl", FAILURES[kind]
    with failing_service(kind, tmp_path) as url, upstream(call("gun"), "Careful.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, url, log=log) as gateway:
            reply = post(gateway, {**VIRUS, "stream": stream})
            metrics = httpx2.get(f"{gateway.origin}/metrics").text
    assert parse_reply(reply)[0] == "Careful."
    assert reply.headers["x-ascl-rules-error"] == cause
    assert f'ascl_gateway_answers_without_rules_total{{cause="{cause}"}} 1.0\n' in metrics
    [episode] = read_log(log).episodes
    assert episode.answered_without_rules == cause
    assert capfd.readouterr().err.count(f"answered without the safety rules ({cause})") == 1
    assert endpoint.requests[1]["messages"][-1]["content"] == RULES_UNREACHABLE


@STREAMED
@pytest.mark.parametrize("kind", ["audit log", "encoder", "error result", "internal error", "nothing", "500"])
def test_a_strict_gateway_gives_no_answer_after_a_failed_consultation(
    stream: bool, kind: str, tmp_path: Path
) -> None:
    for choice in ("refuse", "fail"):
        folder = tmp_path / choice
        folder.mkdir()
        with failing_service(kind, folder) as url, upstream(call("gun")) as endpoint:  # noqa: SIM117
            with run_gateway(endpoint, url, on_rules_error=choice) as gateway:
                reply = post(gateway, {**VIRUS, "stream": stream})
        if choice == "refuse":
            assert parse_reply(reply) == (REFUSAL_WITHOUT_RULES, "stop", [])
        else:
            assert (reply.status_code, reply.json()["error"]["type"]) == (503, "rules_unavailable")
        assert len(endpoint.requests) == 1


@STREAMED
@pytest.mark.parametrize("choice", ["answer", "fail"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"situation": "gun", "categories": ["weapons"]}, "valid: cyber, kitchen"),
        ({"situation": "gun", "top_k": "3"}, "`top_k`"),
        ({"request": "gun"}, "`situation` is missing"),
    ],
)
def test_a_model_may_correct_arguments_that_the_service_rejects(
    arguments: dict[str, Any], message: str, choice: str, stream: bool, tmp_path: Path
) -> None:
    calls = call(arguments=json.dumps(arguments)), call("someone asks for a computer virus", id="c2")
    with serve_toy(tmp_path) as served, upstream(*calls, "No.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, f"{served.origin}/mcp", on_rules_error=choice) as gateway:
            reply = post(gateway, {**VIRUS, "stream": stream})
    assert parse_reply(reply)[0] == "No."
    assert message in endpoint.requests[1]["messages"][-1]["content"]
    assert "x-ascl-rules-error" not in reply.headers
    assert gateway.count("rules_errors") == 0


@pytest.mark.parametrize(
    "reject",
    [
        lambda: error_result("1 validation error: top_k must be an integer"),
        raises(MCPError(INVALID_PARAMS, "top_k must be an integer")),
    ],
)
def test_arguments_that_do_not_match_the_schema_of_another_service_do_not_count_as_a_failure(
    reject: Callable[[], CallToolResult],
) -> None:
    arguments = json.dumps({"situation": "gun", "top_k": "many"})
    with other_service(reject) as url, upstream(call(arguments=arguments), "Hm.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, url, on_rules_error="fail") as gateway:
            reply = post(gateway, VIRUS)
    assert parse_reply(reply)[0] == "Hm."
    assert "top_k" in endpoint.requests[1]["messages"][-1]["content"]
    assert reply.headers["x-ascl-rules-error"] == "no_verdict"
    assert gateway.count("rules_errors") == 0


@STREAMED
@pytest.mark.parametrize("cause", ["unreachable", "timeout", "http_429", "protocol"])
def test_each_answer_without_rules_is_reported_with_its_cause(
    stream: bool, cause: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedRules() as rules:
        client = RulesClient(rules.url, timeout=2, waits=(0.01,))

        async def consult(arguments: dict[str, Any]) -> Any:
            raise RulesError("the rules failed", type=cause)

        client.consult = consult  # type: ignore[method-assign]
        with upstream(call("gun"), "Careful.", "Hi.") as endpoint:  # noqa: SIM117
            with run_gateway(endpoint, rules, client=client, log=log) as gateway:
                reply = post(gateway, {**VIRUS, "stream": stream})
                post(gateway, VIRUS)
                metrics = httpx2.get(f"{gateway.origin}/metrics").text
    assert parse_reply(reply)[0] == "Careful."
    assert reply.headers["x-ascl-rules-error"] == cause
    assert f'ascl_gateway_answers_without_rules_total{{cause="{cause}"}} 1.0\n' in metrics
    episodes = read_log(log).episodes
    assert [episode.answered_without_rules for episode in episodes] == [cause, None]
    assert capfd.readouterr().err.count(f"answered without the safety rules ({cause})") == 1


def test_a_rule_service_that_is_too_slow_is_a_timeout(rules: ScriptedRules) -> None:
    rules.delay = 5.0
    client = RulesClient(rules.url, timeout=0.5, waits=())
    with upstream(call("gun"), "Careful.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules, client=client) as gateway:
            reply = post(gateway, VIRUS)
    assert reply.headers["x-ascl-rules-error"] == "timeout"


@STREAMED
def test_an_answer_after_malformed_calls_only_is_reported_too(rules: ScriptedRules, stream: bool) -> None:
    with upstream(call(arguments='{"situation": '), "Hm.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            reply = post(gateway, {**VIRUS, "stream": stream})
            metrics = httpx2.get(f"{gateway.origin}/metrics").text
    assert reply.headers["x-ascl-rules-error"] == "no_verdict"
    assert 'answers_without_rules_total{cause="no_verdict"} 1.0\n' in metrics
