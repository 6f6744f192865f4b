"""Upstreams that refuse a request because of what the gateway added to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.endpoints.responses import call_item, message_item, reasoning_item, response_with
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.processes.gateway import parse_reply, post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

GUN = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}
JSON_MODE = {**GUN, "response_format": {"type": "json_object"}}
STREAMED = pytest.mark.parametrize("stream", [False, True])


def refuse(message: str, status: int = 400) -> Raw:
    return Raw(status, f'{{"error": {{"message": "{message}"}}}}')


def no_json_mode_beside_tools(body: dict[str, Any]) -> Any:
    return refuse("JSON mode with tools is unsupported") if body.get("tools") else "{}"


@STREAMED
@pytest.mark.parametrize("status", [400, 404, 422, 501])
def test_a_request_that_is_refused_with_the_rule_tool_is_sent_again_without_it(
    rules: ScriptedRules, stream: bool, status: int
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return refuse("no tools here", status) if body.get("tools") else "{}"

    with ScriptedEndpoint(otherwise=reply, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            reply_ = post(gateway, {**JSON_MODE, "stream": stream})
    assert parse_reply(reply_)[0] == "{}"
    assert reply_.headers["x-ascl-consulted"] == "not-offered"
    assert f"HTTP {status}" in reply_.headers["x-ascl-not-offered"]
    assert (len(endpoint.requests), "tools" in endpoint.requests[1]) == (2, False)
    assert gateway.count("not_offered") == 1


@pytest.mark.parametrize("choice", ["refuse", "fail"])
def test_a_strict_gateway_returns_the_refusal(rules: ScriptedRules, choice: Any) -> None:
    with ScriptedEndpoint(otherwise=no_json_mode_beside_tools, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules, on_rules_error=choice) as gateway:
            reply = post(gateway, JSON_MODE)
    assert (reply.status_code, len(endpoint.requests)) == (400, 1)
    assert "JSON mode" in reply.json()["error"]["message"]


def test_an_invalid_request_gets_the_error_that_it_gets_without_the_gateway(rules: ScriptedRules) -> None:
    with upstream(refuse("no such model", 404), refuse("no such model", 404)) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            reply = post(gateway, b'{"model": "typo",  "messages": []}')
    assert (reply.status_code, reply.json()["error"]["message"]) == (404, "no such model")
    assert endpoint.bodies[1] == b'{"model": "typo",  "messages": []}'


@STREAMED
@pytest.mark.parametrize("forbids", ["history without tools", "tool_choice none"])
def test_the_tool_is_forbidden_in_the_way_that_the_upstream_accepts(
    rules: ScriptedRules, stream: bool, forbids: str
) -> None:
    def reply(body: dict[str, Any]) -> Any:
        has_calls = any(message.get("tool_calls") for message in body["messages"])
        if forbids == "history without tools" and has_calls and not body.get("tools"):
            return refuse("The toolConfig field must be defined when using toolUse")
        if forbids == "tool_choice none" and body.get("tool_choice") == "none":
            return refuse("tool_choice none is not supported")
        may_call = body.get("tools") and body.get("tool_choice") != "none"
        return call(f"gun {len(body['messages'])}") if may_call else "No."

    with ScriptedEndpoint(otherwise=reply, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules, max_consultations=2) as gateway:
            answer = post(gateway, {**GUN, "stream": stream})
    assert parse_reply(answer)[:2] == ("No.", "stop")
    assert len(rules.consultations) == 2


@STREAMED
@pytest.mark.parametrize("store", [False, None])
def test_reasoning_that_the_upstream_did_not_store_is_not_sent_back(
    rules: ScriptedRules, stream: bool, store: bool | None
) -> None:
    reasoning = {k: v for k, v in reasoning_item("Hm.").items() if k != "encrypted_content"}

    def second(body: dict[str, Any]) -> Any:
        if any(item.get("type") == "reasoning" for item in body["input"]):
            return refuse("Item with id 'rs_1' not found", 404)
        return response_with(message_item("No."))(body)

    with ScriptedEndpoint(
        [response_with(reasoning, call_item("gun"))], otherwise=second, strict=False
    ) as endpoint:
        fields = {"store": False} if store is False else {}
        with run_gateway(endpoint, rules) as gateway:
            reply = post(gateway, {"input": "How?", "stream": stream, **fields}, path="/responses")
    assert reply.status_code == 200
    assert "No." in reply.text
    assert len(endpoint.requests) == (2 if store is False else 3)
    assert [item.get("type") for item in endpoint.requests[-1]["input"]] == [
        *(None, "function_call", "function_call_output")
    ]
    assert "id" not in endpoint.requests[-1]["input"][1]
