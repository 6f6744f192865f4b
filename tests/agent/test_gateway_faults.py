"""What an application sees when the rules, the upstream, the network or its own request fail."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent.desk import REFUSAL, UNREACHABLE
from agent.log import read_log
from tests.fakes.agents import NOBODY
from tests.fakes.endpoint import Drip, Raw, call
from tests.fakes.gateways import post, running, said, upstream
from tests.fakes.rules import ScriptedRules

GUN = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}
RULE_TOOL = "consult_safety_rules"
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service


@STREAMED
@pytest.mark.parametrize("down", ["from the start", "later"])
def test_rules_that_cannot_be_consulted_are_met_as_chosen(stream: bool, down: str) -> None:
    body = {**GUN, "stream": stream}
    for choice in ("answer", "refuse", "fail"):
        with ScriptedRules() as rules:

            def consult(body: dict[str, Any]) -> Any:
                rules.stop()
                return call("gun")

            url = f"{NOBODY}/mcp" if down == "from the start" else rules.url
            script = ["Careful."] if down == "from the start" else [consult, "Careful."]
            with upstream(*script) as endpoint, running(endpoint, url, on_rules_error=choice) as gateway:
                reply = post(gateway, body)
        assert reply.headers["x-ascl-rules-error"] == "unreachable"
        assert gateway.counters.rules_errors == 1
        if choice == "answer":
            assert said(reply)[0] == "Careful."
            assert ("tools" in endpoint.requests[0]) == (down == "later")
            if down == "later":
                assert endpoint.requests[1]["messages"][-1]["content"] == UNREACHABLE
        elif choice == "refuse":
            assert said(reply) == (REFUSAL, "stop", [])
        else:
            assert reply.status_code == 503
            assert reply.json()["error"]["type"] == "rules_unavailable"


def test_a_gateway_that_insists_refuses_what_it_cannot_offer_rules_with(rules: ScriptedRules) -> None:
    with upstream() as endpoint, running(endpoint, rules, on_rules_error="fail") as gateway:
        reply = post(gateway, {**GUN, "n": 2})
    assert (reply.status_code, reply.json()["error"]["type"], endpoint.requests) == (
        400,
        "rules_not_offered",
        [],
    )


@STREAMED
@pytest.mark.parametrize("turn", [0, 1])
def test_an_error_of_the_upstream_reaches_the_caller_with_its_status_and_headers(
    rules: ScriptedRules, stream: bool, turn: int
) -> None:
    busy = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": "7"})
    with upstream(*[call("gun")][:turn], busy) as endpoint, running(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.json() == {"error": {"message": "slow down"}}
    assert len(endpoint.requests) == turn + 1


@STREAMED
def test_an_upstream_that_is_not_there_is_a_502_in_one_sentence(rules: ScriptedRules, stream: bool) -> None:
    with running(f"{NOBODY}/v1", rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert reply.status_code == 502
    assert reply.json()["error"]["type"] == "upstream_unreachable"


def test_a_stream_cut_in_the_middle_ends_in_an_error_event(rules: ScriptedRules, tmp_path: Path) -> None:
    begun = 'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
    log = tmp_path / "log.jsonl"
    with upstream(Drip([begun], cut=True)) as endpoint, running(endpoint, rules, log=log) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.text.startswith(begun)
    assert '"error"' in reply.text
    assert [e.stop_reason for e in read_log(log).episodes] == ["error"]


def test_a_stream_cut_within_a_consultation_is_no_consultation(rules: ScriptedRules) -> None:
    entry = {"index": 0, "id": "c", "function": {"name": RULE_TOOL, "arguments": '{"situation"'}}
    begun = (
        f"data: {json.dumps({'id': 'x', 'choices': [{'index': 0, 'delta': {'tool_calls': [entry]}}]})}\n\n"
    )
    with upstream(Drip([begun])) as endpoint, running(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.status_code == 502
    assert rules.consultations == []


def test_when_the_caller_leaves_the_upstream_is_left_too(rules: ScriptedRules) -> None:
    piece = 'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
    with upstream(Drip([piece, *[0.05, piece] * 400])) as endpoint, running(endpoint, rules) as gateway:
        with httpx2.stream(
            "POST", f"{gateway.base_url}/chat/completions", json={**GUN, "stream": True}
        ) as reply:
            next(reply.iter_lines())
        assert endpoint.left.wait(10)


def test_when_the_caller_leaves_before_any_byte_the_upstream_is_left_too(rules: ScriptedRules) -> None:
    drip = Drip([" ", *[0.05, " "] * 400], content_type="application/json")
    with upstream(drip) as endpoint, running(endpoint, rules) as gateway:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{gateway.base_url}/chat/completions", json=GUN, timeout=0.5)
        assert endpoint.left.wait(10)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[1]", {}, 400),
        (b"{}" + b" " * 5000, {}, 413),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"host": "evil.example"}, 421),
    ],
)
def test_what_is_no_request_of_an_application_is_refused(
    rules: ScriptedRules, body: bytes, headers: dict[str, str], status: int
) -> None:
    with upstream() as endpoint, running(endpoint, rules, body_limit=4000) as gateway:
        reply = post(gateway, body, headers=headers)
    assert (reply.status_code, endpoint.requests) == (status, [])
    assert reply.json()["error"]["message"]
