"""A line about the rules near the user's last message, which the gateway adds to the system text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent.episode import Episode, read_log, text_digest
from agent.episode.validate import episode_problems
from agent.tools import REFUSAL_WITHOUT_RULES
from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.endpoints.scripted import Raw, call
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.processes.gateway import RunningGateway, parse_reply, post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules
from tests.fakes.rules.toy_service import QUESTION, serve_toy

STREAMED = pytest.mark.parametrize("stream", [False, True])
HI = {"messages": [{"role": "user", "content": "Hi"}]}
LINE = "Rules near a request of 2 characters: Weapons (decline)."
USER = {"role": "user", "content": "Hi"}


@pytest.fixture
def rules() -> Any:
    with ScriptedRules(hints=True) as service:
        yield service


def one_episode(log: Path) -> Episode:
    [episode] = read_log(log).episodes
    assert episode_problems(episode) == []
    return episode


def respond(gateway: RunningGateway, **body: Any) -> httpx2.Response:
    return post(gateway, {"input": "Hi", **body}, path="/responses")


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ([], [{"role": "system", "content": LINE}]),
        (
            [{"role": "system", "content": "Be brief."}],
            [{"role": "system", "content": f"Be brief.\n\n{LINE}"}],
        ),
        (
            [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "No jokes."}],
            [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": f"No jokes.\n\n{LINE}"},
            ],
        ),
        (
            [{"role": "system", "content": [{"type": "text", "text": "Be brief."}], "name": "n"}],
            [
                {
                    "role": "system",
                    "content": [
                        {"type": "text", "text": "Be brief."},
                        {"type": "text", "text": f"\n\n{LINE}"},
                    ],
                    "name": "n",
                }
            ],
        ),
    ],
)
def test_the_hint_ends_the_system_messages(
    rules: ScriptedRules, given: list[dict[str, Any]], received: list[dict[str, Any]]
) -> None:
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules, hint=True) as gateway:
        reply = post(gateway, {"messages": [*given, USER]})
        assert gateway.count("hints") == 1
    assert endpoint.requests[0]["messages"] == [*received, USER]
    assert LINE not in reply.text


@STREAMED
def test_every_turn_of_a_request_has_the_hint_and_the_episode_records_it(
    rules: ScriptedRules, stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(call("a gun"), "No.") as endpoint,
        run_gateway(endpoint, rules, hint=True, log=log) as gateway,
    ):
        messages = [{"role": "system", "content": "Be brief."}, USER]
        reply = post(gateway, {"messages": messages, "stream": stream})
    assert parse_reply(reply)[0] == "No."
    assert LINE not in reply.text
    system = {"role": "system", "content": f"Be brief.\n\n{LINE}"}
    assert [body["messages"][0] for body in endpoint.requests] == [system, system]
    episode = one_episode(log)
    assert episode.hint is not None
    assert (episode.hint.text, episode.prompt, episode.messages[0]) == (LINE, "Hi", system)
    assert episode.prompt_digest == text_digest("Be brief.")


def test_a_hinted_episode_is_in_another_group_than_one_without(rules: ScriptedRules, tmp_path: Path) -> None:
    logs = tmp_path / "with.jsonl", tmp_path / "without.jsonl"
    for log in logs:
        with (
            upstream("Hello.") as endpoint,
            run_gateway(endpoint, rules, hint=log is logs[0], log=log) as gateway,
        ):
            post(gateway, HI)
    hinted, plain = map(one_episode, logs)
    assert hinted.group_id != plain.group_id
    assert (hinted.prompt_id, hinted.prompt_digest) == (plain.prompt_id, plain.prompt_digest)
    assert "hint" not in json.loads(plain.model_dump_json())


@STREAMED
def test_the_instructions_of_a_response_end_with_the_hint_and_come_back_without_it(
    rules: ScriptedRules, stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    rule_call, no = response_with(call_item("gun")), response_with(message_item("No."))
    with (
        upstream(rule_call, no, no) as endpoint,
        run_gateway(endpoint, rules, hint=True, log=log) as gateway,
    ):
        consulted = respond(gateway, stream=stream, instructions="Be brief.")
        direct = respond(gateway, stream=stream)
    assert [body["instructions"] for body in endpoint.requests] == [
        *[f"Be brief.\n\n{LINE}"] * 2,
        LINE,
    ]
    assert [body["input"][0] for body in endpoint.requests] == [USER] * 3
    for reply in (consulted, direct):
        assert reply.status_code == 200
        assert LINE not in reply.text
    assert '"instructions":"Be brief."' in consulted.text.replace(": ", ":")
    assert '"instructions":null' in direct.text.replace(": ", ":")
    episode = read_log(log).episodes[0]
    assert episode.messages[0] == {"role": "system", "content": f"Be brief.\n\n{LINE}"}
    assert episode.prompt_digest == text_digest("Be brief.")


def test_system_items_and_stored_prompts_keep_the_hint_out_of_the_instructions(rules: ScriptedRules) -> None:
    answer = response_with(message_item("Hello."))
    item = {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}
    with upstream(answer, answer) as endpoint, run_gateway(endpoint, rules, hint=True) as gateway:
        respond(gateway, input=[item, USER])
        respond(gateway, prompt={"id": "pmpt_1"})
    first, second = endpoint.requests
    part = {"type": "input_text", "text": f"\n\n{LINE}"}
    assert first["input"] == [{**item, "content": [*item["content"], part]}, USER]
    assert second["input"] == [{"role": "system", "content": LINE}, USER]
    assert "instructions" not in {**first, **second}


def test_a_request_without_the_rule_tool_or_without_text_has_no_hint(rules: ScriptedRules) -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with upstream("Hello.", "Hello.") as endpoint, run_gateway(endpoint, rules, hint=True) as gateway:
        post(gateway, {**HI, "tool_choice": "none"})
        post(gateway, {"messages": [{"role": "user", "content": image}]})
        assert gateway.count("hints") == 0
    assert [len(body["messages"]) for body in endpoint.requests] == [1, 1]


def test_an_upstream_that_refuses_the_rule_tool_gets_the_callers_own_request(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(Raw(400, "{}"), "Hello.") as endpoint,
        run_gateway(endpoint, rules, hint=True, log=log) as gateway,
    ):
        reply = post(gateway, HI)
    assert reply.headers["x-ascl-consulted"] == "not-offered"
    assert endpoint.requests[1]["messages"] == HI["messages"]
    assert one_episode(log).hint is None


def test_a_retry_resumes_with_the_hint_of_the_first_attempt(rules: ScriptedRules) -> None:
    down = Raw(503, '{"error": {"message": "overloaded"}}')
    with (
        upstream(call("gun"), down, "No.") as endpoint,
        run_gateway(endpoint, rules, hint=True) as gateway,
    ):
        post(gateway, HI)
        reply = post(gateway, HI, headers={"x-stainless-retry-count": "1"})
        assert gateway.count("hints") == 1
    assert parse_reply(reply)[0] == "No."
    assert endpoint.requests[1] == endpoint.requests[2]


@STREAMED
@pytest.mark.parametrize("policy", ["answer", "refuse", "fail"])
def test_a_failed_hint_follows_the_setting_for_rules_that_cannot_be_consulted(
    policy: str, stream: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        ScriptedRules() as rules,  # without hints
        upstream("Hello.") as endpoint,
        run_gateway(endpoint, rules, hint=True, on_rules_error=policy, log=log) as gateway,
    ):
        reply = post(gateway, {**HI, "stream": stream})
        assert gateway.count("rules_errors") == 1
        metrics = httpx2.get(f"{gateway.origin}/metrics").text
    assert reply.headers["x-ascl-rules-error"] == "no_hints"
    episode = one_episode(log)
    assert episode.error is not None
    assert episode.error.type == "no_hints"
    if policy == "fail":
        assert (reply.status_code, endpoint.requests) == (503, [])
        assert "leave --hint out" in reply.json()["error"]["message"]
        return
    expected = "Hello." if policy == "answer" else REFUSAL_WITHOUT_RULES
    assert parse_reply(reply)[0] == expected
    if policy == "answer":
        assert endpoint.requests[0]["messages"] == HI["messages"]
        assert endpoint.requests[0]["tools"]
        assert episode.answered_without_rules == "no_hints"
        assert 'ascl_gateway_answers_without_rules_total{cause="no_hints"} 1.0' in metrics
        assert "answered without the safety rules (no_hints)" in capfd.readouterr().err


def test_no_hint_is_fetched_from_a_service_that_never_answered() -> None:
    with upstream("Hello.") as endpoint, run_gateway(endpoint, CLOSED_URL, hint=True) as gateway:
        reply = post(gateway, HI)
    assert reply.headers["x-ascl-rules-error"] == "unreachable"
    assert endpoint.requests[0]["messages"] == HI["messages"]


def test_a_consultation_with_the_text_of_the_hint_is_not_embedded_again(tmp_path: Path) -> None:
    text = QUESTION["situation"]
    with serve_toy(tmp_path) as service, upstream(call(text), "No.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, f"{service.origin}/mcp", hint=True) as gateway:
            post(gateway, {"messages": [{"role": "user", "content": text}]})
            assert 'ascl_cache_total{result="hit"} 1.0' in service.client.get("/metrics").text
    assert "Malicious software (decline)" in endpoint.requests[0]["messages"][0]["content"]


def test_a_long_message_is_searched_by_its_beginning(tmp_path: Path) -> None:
    with serve_toy(tmp_path) as service, upstream("No.") as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, f"{service.origin}/mcp", hint=True) as gateway:
            post(gateway, {"messages": [{"role": "user", "content": "computer virus " * 1000}]})
            assert gateway.count("hints") == 1
    assert "Malicious software" in endpoint.requests[0]["messages"][0]["content"]
