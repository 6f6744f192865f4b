"""An offset on the token that opens a call, which the gateway adds to chat requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.episode import read_log
from agent.episode.validate import episode_problems
from tests.fakes.endpoints.responses import message_item, response_with
from tests.fakes.endpoints.scripted import Raw, call
from tests.fakes.processes.gateway import RunningGateway, parse_reply, post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

BIAS = {"151657": 1.84}
HI = {"messages": [{"role": "user", "content": "Hi"}]}
REFUSED = Raw(400, json.dumps({"error": {"message": "logit_bias is not supported"}}))
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def rules() -> Any:
    with ScriptedRules() as service:
        yield service


def missing(gateway: RunningGateway, cause: str) -> float:
    name = "ascl_gateway_decision_bias_missing_total"
    return gateway.gateway.metrics.registry.get_sample_value(name, {"cause": cause}) or 0


@STREAMED
def test_every_turn_that_offers_the_rule_tool_has_the_bias_and_the_episode_records_it(
    rules: ScriptedRules, stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(call("a gun"), "No.") as endpoint,
        run_gateway(endpoint, rules, logit_bias=BIAS, log=log) as gateway,
    ):
        assert parse_reply(post(gateway, {**HI, "stream": stream}))[0] == "No."
    assert [body.get("logit_bias") for body in endpoint.requests] == [BIAS, BIAS]
    [episode] = read_log(log).episodes
    assert episode_problems(episode) == []
    assert episode.sampling_sent["logit_bias"] == BIAS


def test_the_last_request_without_the_tool_has_only_the_applications_own_bias(rules: ScriptedRules) -> None:
    with (
        upstream(call("a gun"), "No.") as endpoint,
        run_gateway(endpoint, rules, logit_bias=BIAS, max_consultations=1) as gateway,
    ):
        post(gateway, {**HI, "logit_bias": {"7": -5}})
    assert [body["logit_bias"] for body in endpoint.requests] == [{**BIAS, "7": -5}, {"7": -5}]


def test_an_entry_of_the_application_for_the_same_token_wins(rules: ScriptedRules) -> None:
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules, logit_bias=BIAS) as gateway:
        post(gateway, {**HI, "logit_bias": {"151657": -100}})
    assert endpoint.requests[0]["logit_bias"] == {"151657": -100}


@STREAMED
def test_an_upstream_that_refuses_the_bias_gets_the_rule_tool_without_it(
    rules: ScriptedRules, stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(REFUSED, call("a gun"), "No.") as endpoint,
        run_gateway(endpoint, rules, logit_bias=BIAS, log=log) as gateway,
    ):
        reply = post(gateway, {**HI, "stream": stream})
        assert missing(gateway, "http_400") == 1
    assert parse_reply(reply)[0] == "No."
    assert ["logit_bias" in body for body in endpoint.requests] == [True, False, False]
    assert all(body["tools"] for body in endpoint.requests)
    [episode] = read_log(log).episodes
    assert episode.mode == "consult"
    assert "logit_bias" not in episode.sampling_sent


def test_an_upstream_that_refuses_the_tool_too_gets_the_applications_own_request(
    rules: ScriptedRules,
) -> None:
    with (
        upstream(REFUSED, REFUSED, "Hello.") as endpoint,
        run_gateway(endpoint, rules, logit_bias=BIAS) as gateway,
    ):
        reply = post(gateway, HI)
        assert missing(gateway, "http_400") == 0
    assert reply.headers["x-ascl-consulted"] == "not-offered"
    assert endpoint.requests[2] == {"model": "scripted", **HI}


def test_responses_requests_have_no_bias_and_are_counted(rules: ScriptedRules) -> None:
    answer = response_with(message_item("Hello."))
    with upstream(answer) as endpoint, run_gateway(endpoint, rules, logit_bias=BIAS) as gateway:
        post(gateway, {"input": "Hi"}, path="/responses")
        assert missing(gateway, "responses_api") == 1
    assert "logit_bias" not in endpoint.requests[0]


def test_a_request_without_the_rule_tool_has_no_bias(rules: ScriptedRules) -> None:
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules, logit_bias=BIAS) as gateway:
        post(gateway, {**HI, "tool_choice": "none"})
    assert "logit_bias" not in endpoint.requests[0]
