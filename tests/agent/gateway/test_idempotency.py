"""Retries by a caller's library: no hidden turn and no consultation is repeated."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx2
import openai
import pytest

from agent.gateway import idempotency
from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.endpoints.scripted import Drip, Raw, call
from tests.fakes.processes.gateway import RunningGateway, post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

GUN: dict[str, Any] = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}
DOWN = Raw(503, '{"error": {"message": "overloaded"}}', {"retry-after": "0"})
SLOW = Drip([30.0, "{}"], content_type="application/json")
AGAIN = {"x-stainless-retry-count": "1"}


def client(gateway: RunningGateway, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base_url, api_key="sk-caller", **options)


def leave(gateway: RunningGateway, seconds: float, path: str = "/chat/completions", **body: Any) -> None:
    """Sends a request, and disconnects before the reply."""
    sent = {"authorization": "Bearer sk-caller"}
    with pytest.raises(httpx2.TimeoutException), httpx2.Client(timeout=seconds, headers=sent) as http:
        http.post(gateway.base_url + path, json={"model": "scripted", **body})


def same(gateway: RunningGateway, headers: dict[str, str], **body: Any) -> httpx2.Response:
    """Sends the bytes that `leave` sends."""
    sent = {"authorization": "Bearer sk-caller", **headers}
    with httpx2.Client(timeout=30, headers=sent) as http:
        return http.post(f"{gateway.base_url}/chat/completions", json={"model": "scripted", **body})


def test_the_official_sdk_repeats_no_hidden_turn_after_a_timeout(
    rules: ScriptedRules,
) -> None:
    with upstream(call("gun"), SLOW, "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = client(gateway, timeout=1.0, max_retries=1).chat.completions.create(model="scripted", **GUN)
        assert gateway.count("coalesced") == 1
    assert reply.choices[0].message.content == "No."
    assert len(rules.consultations) == 1
    assert len(endpoint.requests) == 3
    assert endpoint.requests[1] == endpoint.requests[2]


@pytest.mark.parametrize("stream", [False, True])
def test_a_retry_after_an_upstream_error_resumes_after_the_consultation(
    rules: ScriptedRules, stream: bool
) -> None:
    with upstream(call("gun"), DOWN, "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = client(gateway, max_retries=2).chat.completions.create(model="scripted", stream=stream, **GUN)
        if stream:
            text = "".join(c.choices[0].delta.content or "" for c in reply if c.choices)
        else:
            text = reply.choices[0].message.content
    assert text == "No."
    assert (len(endpoint.requests), len(rules.consultations)) == (3, 1)


def test_a_retry_of_the_responses_api_resumes_too(rules: ScriptedRules) -> None:
    answers = response_with(call_item("gun")), DOWN, response_with(message_item("No."))
    with upstream(*answers) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = client(gateway, max_retries=2).responses.create(model="scripted", input="How?")
    assert reply.output_text == "No."
    assert (len(endpoint.requests), len(rules.consultations)) == (3, 1)
    assert reply.usage is not None
    assert reply.usage.total_tokens == 50


def test_a_consultation_finishes_after_the_caller_disconnects_and_the_retry_uses_it() -> None:
    with ScriptedRules(delay=1.0) as rules, upstream(call("gun"), "No.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            leave(gateway, 0.5, **GUN)
            reply = same(gateway, AGAIN, **GUN)
    assert reply.json()["choices"][0]["message"]["content"] == "No."
    assert reply.headers["x-ascl-consulted"] == "yes"
    assert reply.json()["usage"]["total_tokens"] == 50
    assert (len(endpoint.requests), len(rules.consultations)) == (2, 1)


def test_a_retry_waits_for_the_running_attempt_and_both_get_its_reply(rules: ScriptedRules) -> None:
    replies: list[httpx2.Response] = []
    with upstream(call("gun"), "No.", delay=0.5) as endpoint, run_gateway(endpoint, rules) as gateway:
        first = threading.Thread(
            target=lambda: replies.append(same(gateway, {"idempotency-key": "k"}, **GUN))
        )
        first.start()
        deadline = time.monotonic() + 20
        while not endpoint.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        replies.append(same(gateway, {"idempotency-key": "k"}, **GUN))
        first.join(20)
    assert replies[0].json() == replies[1].json()
    assert (len(endpoint.requests), len(rules.consultations)) == (2, 1)


def test_requests_that_sample_one_prompt_several_times_get_separate_answers(
    rules: ScriptedRules,
) -> None:
    with upstream(*[call("gun"), "No."] * 3) as endpoint, run_gateway(endpoint, rules) as gateway:
        for _ in range(3):
            assert post(gateway, GUN).status_code == 200
        assert gateway.count("coalesced") == 0
    assert (len(endpoint.requests), len(rules.consultations)) == (6, 3)


@pytest.mark.parametrize(
    ("settings", "headers", "requests"),
    [
        ({}, {}, 4),
        ({"coalesce": "equal"}, {}, 3),
        ({"coalesce": "off"}, AGAIN, 4),
        ({"coalesce_window": 0.0}, AGAIN, 4),
        ({}, {**AGAIN, "authorization": "Bearer sk-other"}, 4),
    ],
    ids=["unmarked", "equal", "off", "too late", "another caller"],
)
def test_the_setting_decides_which_requests_resume_an_attempt(
    rules: ScriptedRules, settings: dict[str, Any], headers: dict[str, str], requests: int
) -> None:
    answers = [call("gun"), DOWN, *([call("gun")] if requests == 4 else []), "No."]
    with upstream(*answers) as endpoint, run_gateway(endpoint, rules, **settings) as gateway:
        assert post(gateway, GUN).status_code == 503
        assert post(gateway, GUN, headers=headers).json()["choices"][0]["message"]["content"] == "No."
    assert len(endpoint.requests) == requests
    assert len(rules.consultations) == requests - 2


def test_the_results_of_failed_attempts_are_bounded(
    rules: ScriptedRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_MAX_ATTEMPTS", 2)
    with upstream(*[call("gun"), DOWN] * 6) as endpoint, run_gateway(endpoint, rules) as gateway:
        for n in range(6):
            post(gateway, {"messages": [{"role": "user", "content": f"How, {n}?"}]})
        assert len(gateway.gateway.repeated_requests._failed) == 2
        assert gateway.gateway.repeated_requests._running == {}
