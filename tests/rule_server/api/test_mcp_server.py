"""The MCP server with the SDK's client: over HTTP in both protocol generations, and over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

from rule_server import RuleService
from tests.fakes.processes.live_server import LiveServer

QUESTION = "someone asks for a computer virus"
ROOT = Path(__file__).resolve().parents[3]


def ask(target: Any, use: Callable[[Client], Awaitable[Any]], mode: str = "auto") -> Any:
    async def session() -> Any:
        async with Client(target, mode=mode) as client:
            return await use(client)

    return asyncio.run(session())


@pytest.fixture
def url(served: LiveServer) -> str:
    for _ in range(200):
        if httpx2.get(f"{served.origin}/readyz").status_code == 200:
            break
    return f"{served.origin}/mcp"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_tool_returns_structured_data_and_the_complete_text(url: str, mode: str) -> None:
    result = ask(url, lambda c: c.call_tool("consult_safety_rules", {"situation": QUESTION}), mode)
    assert not result.is_error
    data = result.structured_content
    assert data["verdict"] == "rules_found"
    [block] = result.content
    for rule in data["rules"]:
        assert f"[{rule['id']}] {rule['title']} ({rule['stance']})\n{rule['text']}" in block.text


def test_rest_and_mcp_return_the_same_response(url: str) -> None:
    result = ask(url, lambda c: c.call_tool("consult_safety_rules", {"situation": QUESTION}))
    rest = httpx2.post(url.replace("/mcp", "/v1/consult"), json={"situation": QUESTION})
    assert result.structured_content == rest.json()


def test_the_tool_list_is_strict_and_under_600_tokens(url: str) -> None:
    [tool] = ask(url, lambda c: c.list_tools()).tools
    assert tool.name == "consult_safety_rules"
    assert tool.input_schema["additionalProperties"] is False
    assert tool.input_schema["required"] == ["situation"]
    assert tool.annotations.read_only_hint is True
    assert tool.output_schema["required"] == ["verdict", "rules", "threshold", "rulebook"]
    # Four characters per token is a generous estimate for JSON.
    assert len(tool.model_dump_json(by_alias=True, exclude_none=True)) / 4 < 600
    assert "Do not call it for everyday requests" in tool.description


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"situation": QUESTION, "top_k": "3"}, "`top_k`: input should be a valid integer"),
        ({"situation": QUESTION, "extra": 1}, "`extra` is not an argument"),
        ({}, "`situation` is missing"),
        ({"situation": QUESTION, "categories": ["weapons"]}, "valid: cyber, kitchen"),
    ],
)
def test_an_invalid_argument_returns_a_sentence_that_the_model_can_act_on(
    url: str, arguments: dict[str, Any], message: str
) -> None:
    result = ask(url, lambda c: c.call_tool("consult_safety_rules", arguments))
    assert result.is_error
    assert message in result.content[0].text


def test_null_arguments_count_as_omitted(url: str) -> None:
    arguments = {"situation": QUESTION, "categories": None, "top_k": None, "lang": None}
    assert not ask(url, lambda c: c.call_tool("consult_safety_rules", arguments)).is_error


def test_resources_and_prompt_can_be_read(url: str, service: RuleService) -> None:
    current = ask(url, lambda c: c.read_resource("rulebook://current"))
    assert json.loads(current.contents[0].text)["digest"] == service.rulebook.digest
    one = ask(url, lambda c: c.read_resource("rules://cyber.malware"))
    assert json.loads(one.contents[0].text)["stance"] == "decline"
    # The client's transport runs in task groups, which wrap exceptions.
    unknown = pytest.RaisesExc(MCPError, match=r"has no rule 'cyber\.nothing'")
    with pytest.RaisesGroup(unknown, allow_unwrapped=True, flatten_subgroups=True):
        ask(url, lambda c: c.read_resource("rules://cyber.nothing"))
    prompt = ask(url, lambda c: c.get_prompt("safety_rules_guidance"))
    assert "consult_safety_rules" in prompt.messages[0].content.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_unknown_prompt_is_an_invalid_parameter(url: str, mode: str) -> None:
    unknown = pytest.RaisesExc(MCPError, match=r"unknown prompt 'other'", check=lambda e: e.code == -32602)
    with pytest.RaisesGroup(unknown, allow_unwrapped=True, flatten_subgroups=True):
        ask(url, lambda c: c.get_prompt("other"), mode)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_argument_that_the_prompt_does_not_have_is_an_invalid_parameter(
    url: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = pytest.RaisesExc(MCPError, match="takes no arguments", check=lambda e: e.code == -32602)
    with pytest.RaisesGroup(error, allow_unwrapped=True, flatten_subgroups=True):
        ask(url, lambda c: c.get_prompt("safety_rules_guidance", {"name": "x"}), mode)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_every_protocol_revision_with_a_handshake_works(url: str, revision: str) -> None:
    accept = {"Accept": "application/json, text/event-stream"}

    def send(method: str, headers: dict[str, str], **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = httpx2.post(url, json=body, headers=accept | headers, timeout=30)
        assert answer.status_code == 200
        return answer.json()["result"]

    client = {"name": "raw", "version": "1"}
    started = send("initialize", {}, protocolVersion=revision, capabilities={}, clientInfo=client)
    assert started["protocolVersion"] == revision
    # The header exists since 2025-06-18.
    headers = {"mcp-protocol-version": revision} if revision >= "2025-06-18" else {}
    assert [tool["name"] for tool in send("tools/list", headers)["tools"]] == ["consult_safety_rules"]
    everything = {"situation": QUESTION, "categories": None, "top_k": None, "lang": None}
    answer = send("tools/call", headers, name="consult_safety_rules", arguments=everything)
    assert answer["structuredContent"]["rules"][0]["id"] == "cyber.malware"


def call_tool(url: str, headers: dict[str, str] | None = None, **arguments: Any) -> httpx2.Response:
    """Calls the tool without an SDK."""
    params = {"name": "consult_safety_rules", "arguments": {"situation": QUESTION} | arguments}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    given = {"Accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    return httpx2.post(
        url, content=json.dumps(body), headers=given | {"Content-Type": "application/json"} | (headers or {})
    )


def test_a_final_slash_makes_no_difference(url: str) -> None:
    assert call_tool(f"{url}/").json()["result"]["structuredContent"]["rules"]
    root = url.removesuffix("/mcp")
    assert httpx2.post(f"{root}/v1/consult/", json={"situation": QUESTION}).json()["rules"]
    assert httpx2.get(f"{root}/v1/rules/").json()
    assert httpx2.get(f"{url}/").status_code == 405


@pytest.mark.parametrize("kind", ["Application/JSON", "APPLICATION/JSON; charset=UTF-8"])
def test_media_types_are_compared_without_case(url: str, kind: str) -> None:
    headers = {"Content-Type": kind, "Accept": "Application/JSON, Text/Event-Stream"}
    for revision in ("2025-03-26", "2025-11-25"):
        answer = call_tool(url, headers | {"mcp-protocol-version": revision})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("top_k", [1.0, 3.0, 10.0])
def test_a_whole_number_may_be_written_as_a_float(url: str, top_k: float) -> None:
    one, other = (call_tool(url, top_k=number).json()["result"] for number in (top_k, int(top_k)))
    assert one["structuredContent"]["rules"] == other["structuredContent"]["rules"] != []
    body = {"situation": QUESTION, "top_k": top_k}
    assert httpx2.post(url.replace("/mcp", "/v1/consult"), json=body).json()["rules"]


@pytest.mark.parametrize("top_k", [1.5, 0.0, 11.0, 1e300, True])
def test_another_number_is_refused(url: str, top_k: float) -> None:
    assert call_tool(url, top_k=top_k).json()["result"]["isError"]
    body = {"situation": QUESTION, "top_k": top_k}
    assert httpx2.post(url.replace("/mcp", "/v1/consult"), json=body).status_code == 422


def test_a_batch_gets_an_error_of_the_protocol(url: str) -> None:
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "ping"}]
    answer = httpx2.post(url, json=batch, headers={"Accept": "application/json, text/event-stream"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32600
    assert "batches are not supported" in answer.json()["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
def test_methods_other_than_post_get_a_405_and_no_open_connection(url: str, method: str) -> None:
    answer = httpx2.request(method, url, timeout=5)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_stdio_serves_the_same_tool(artefact: Path, rules: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "rule_server.cli", "stdio", "--rules", str(rules), "--artefact", str(artefact)],
        cwd=ROOT,
    )
    result = ask(stdio_client(server), lambda c: c.call_tool("consult_safety_rules", {"situation": QUESTION}))
    assert result.structured_content["rules"][0]["id"] == "cyber.malware"
