"""The agent on the Responses API: requests, replies, the episode log, and odd servers."""

# ruff: noqa: E501 - one case a line reads as a table

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.endpoint import Endpoint, quirks_named
from agent.episode import Episode, EpisodeLog, Event, read_log, validate_log
from agent.export.trl import to_trl_row
from agent.rollout import Agent, Prompt, run_prompts
from agent.tools import RulesClient
from tests.fakes.endpoints.responses import call_item, message_item, reasoning_item, response_with
from tests.fakes.endpoints.scripted import Drip, Raw, ScriptedEndpoint
from tests.fakes.episodes.agent_run import FAST_RETRY, run_agent
from tests.fakes.rules.scripted import ScriptedRules

GUN = "How do I make a gun?"
NO = response_with(message_item("No."))


def answered(
    script: list[Any], rules: ScriptedRules | None, **options: Any
) -> tuple[Episode, ScriptedEndpoint]:
    with ScriptedEndpoint(script, otherwise=NO, strict=False) as endpoint:
        return run_agent(GUN, endpoint, rules, api="responses", **options), endpoint


@pytest.mark.parametrize("stream", [False, True])
def test_items_go_back_whole_each_call_followed_by_its_answer(rules: ScriptedRules, stream: bool) -> None:
    first = [reasoning_item("Is it délicate?"), message_item("Let me see."), call_item("gun", id="c1")]
    episode, endpoint = answered([response_with(*first)], rules, stream=stream, system="Be kind.")
    assert (episode.answer, episode.mode, episode.api) == ("No.", "consult", "responses")
    one, two = endpoint.requests
    for body in (one, two):
        assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
        assert body["instructions"] == "Be kind."
        assert body["tools"][0]["name"] == "consult_safety_rules"
        assert body.get("stream", False) is stream
        assert "messages" not in body
    assert one["input"] == [{"role": "user", "content": GUN}]
    answer = episode.consultations[0].text
    assert two["input"] == [
        *one["input"],
        *first,
        {"type": "function_call_output", "call_id": "c1", "output": answer},
    ]
    assert first[0]["encrypted_content"] == "sealed Is it délicate?"


def test_an_episode_reads_like_one_of_chat_completions(rules: ScriptedRules, tmp_path: Path) -> None:
    script = [response_with(reasoning_item("Delicate."), call_item("gun", id="c1"))]
    episode, _ = answered(script, rules, sampling={"max_tokens": 64, "temperature": 0.5})
    called = episode.messages[2]
    assert (called["reasoning"], called["content"]) == ("Delicate.", None)
    assert called["tool_calls"][0]["function"]["arguments"] == '{"situation": "gun"}'
    assert [message["role"] for message in episode.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [turn.finish_reason for turn in episode.turns] == ["tool_calls", "stop"]
    usage = episode.turns[0].usage
    assert usage is not None
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 5)
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}

    log = tmp_path / "log.jsonl"
    with EpisodeLog(log) as file:
        file.append(episode)
    assert validate_log(log) == (1, [])
    assert read_log(log).episodes == [episode]
    shown = CliRunner().invoke(app, ["show", str(log), episode.id])
    assert 'calls consult_safety_rules({"situation": "gun"})' in shown.output
    row = to_trl_row(episode)
    assert row is not None
    assert all("response_items" not in message for message in row["messages"])
    assert row["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"situation": "gun"}


def test_what_was_sent_and_what_the_endpoint_says_it_used_are_both_recorded(rules: ScriptedRules) -> None:
    def answer(body: dict[str, Any]) -> Raw:
        whole = json.loads(response_with(message_item("No."))({}).body)
        return Raw(
            200, json.dumps({**whole, "temperature": 1.0, "reasoning": {"effort": "low", "context": "auto"}})
        )

    episode, endpoint = answered([answer], rules, sampling={"max_tokens": 64, "temperature": 0.5})
    assert endpoint.requests[0]["max_output_tokens"] == 64
    assert "max_tokens" not in endpoint.requests[0]
    assert episode.sampling_sent == {"max_tokens": 64, "temperature": 0.5}
    assert episode.sampling_effective == {
        "temperature": 1.0,
        "reasoning": {"effort": "low", "context": "auto"},
    }


def test_streamed_thoughts_and_text_are_told_as_they_come(rules: ScriptedRules) -> None:
    result_text: list[Event] = []
    script = [response_with(reasoning_item("Is it delicate?"), message_item("Surely not, I think."))]
    episode, _ = answered(script, rules, stream=True, on_event=result_text.append)
    assert "".join(e.text for e in result_text if e.kind == "reasoning") == "Is it delicate?"
    assert (
        "".join(e.text for e in result_text if e.kind == "content")
        == "Surely not, I think."
        == episode.answer
    )


def test_a_refusal_ends_in_refused(rules: ScriptedRules) -> None:
    part = {"type": "refusal", "refusal": "I will not."}
    episode, _ = answered([response_with({**message_item(""), "content": [part]})], rules)
    assert (episode.stop_reason, episode.messages[-1]["refusal"]) == ("refused", "I will not.")


@pytest.mark.parametrize(
    ("reason", "finish", "stop"),
    [("max_output_tokens", "length", "answer"), ("content_filter", "content_filter", "refused")],
)
def test_an_incomplete_reply_says_why(rules: ScriptedRules, reason: str, finish: str, stop: str) -> None:
    whole = json.loads(response_with(message_item("Half a"))({}).body)
    body = {**whole, "status": "incomplete", "incomplete_details": {"reason": reason}}
    episode, _ = answered([Raw(200, json.dumps(body))], rules)
    assert (episode.turns[0].finish_reason, episode.stop_reason) == (finish, stop)


def test_log_probabilities_are_asked_for_and_kept_where_the_endpoint_gives_them() -> None:
    part = {
        "type": "output_text",
        "text": "4",
        "annotations": [],
        "logprobs": [{"token": "4", "logprob": -0.1}],
    }
    episode, endpoint = answered(
        [response_with({**message_item(""), "content": [part]})], None, quirks=quirks_named("vLLM")
    )
    assert "message.output_text.logprobs" in endpoint.requests[0]["include"]
    assert episode.turns[0].logprobs == {"content": [{"token": "4", "logprob": -0.1}]}


def test_a_setting_that_the_api_does_not_have_is_named_before_anything_is_sent() -> None:
    episode, endpoint = answered([], None, sampling={"seed": 1})
    assert endpoint.requests == []
    assert episode.error is not None
    assert "does not support seed: omit it, or use --api chat" in episode.error.message
    assert episode.error.setup


def test_a_thought_of_which_only_the_id_came_is_not_sent_back(rules: ScriptedRules) -> None:
    bare = {"type": "reasoning", "id": "rs_1", "summary": []}
    _, endpoint = answered([response_with(bare, call_item("gun", id="c1"))], rules)
    assert [item.get("type") for item in endpoint.requests[1]["input"]] == [
        None,
        "function_call",
        "function_call_output",
    ]
    assert "id" not in endpoint.requests[1]["input"][1]


def test_a_run_goes_on_by_the_same_api_and_refuses_the_other(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "p", "prompt": "How?"}\n', encoding="utf-8")
    with ScriptedEndpoint([response_with(call_item("gun"))], otherwise=NO, strict=False) as endpoint:
        services = ["--base-url", endpoint.base_url, "--model", "m", "--rules-url", rules.url]
        command = ["run", "--prompts", str(prompts), "--log", str(log), *services]
        first = CliRunner().invoke(app, [*command, "--api", "responses"])
        again = CliRunner().invoke(app, [*command, "--api", "responses", "--json"])
        other = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert json.loads(again.stdout)["asked"] == 0
    assert other.exit_code == 1
    assert "api was" in other.output
    (episode,) = read_log(log).episodes
    assert (episode.mode, episode.answer) == ("consult", "No.")


def test_an_interrupted_conversation_goes_on_with_the_very_same_items(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    first = response_with(reasoning_item("Hm."), call_item("gun", id="c1"))

    def sample(script: list[Any]) -> ScriptedEndpoint:
        async def session(base_url: str) -> None:
            async with (
                Endpoint(base_url, "m", retry=FAST_RETRY, api="responses") as model,
                RulesClient(rules.url, waits=()) as client,
            ):
                agent = Agent(model, client, on_rules_error="fail")
                await run_prompts(agent, [Prompt(id="p", prompt=GUN, kind=None)], tmp_path / "log.jsonl")

        with ScriptedEndpoint(script, otherwise=NO, strict=False) as endpoint:
            asyncio.run(session(endpoint.base_url))
        return endpoint

    before = sample([first, Raw(400, "{}")])
    after = sample([])
    assert len(after.requests) == 1
    assert after.requests[0]["input"] == before.requests[1]["input"]
    assert read_log(tmp_path / "log.jsonl").episodes[-1].answer == "No."


@dataclass(frozen=True)
class Case:
    """The endpoint sends the replies of `script`, and then answers `No.` to every request."""

    name: str
    script: list[Any]
    stop: str = "answer"
    answer: str | None = "No."
    requests: int = 2
    query_count: int = 1
    error: str | None = None
    only: str | None = None
    result_text: str | None = None


def body(status: str = "completed", output: Any = (), **more: Any) -> Raw:
    return Raw(200, json.dumps({"id": "r", "object": "response", "status": status, "output": output, **more}))


def events(*given: dict[str, Any], cut: bool = False, done: bool = False) -> Drip:
    text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in given)
    return Drip([text + ("data: [DONE]\n\n" if done else "")], cut=cut)


CREATED = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}}
WORD = {"type": "response.output_text.delta", "output_index": 0, "delta": "Sure"}
DONE_CALL = {"type": "response.output_item.done", "output_index": 0, "item": call_item("gun", id="c1")}
BUSY = {"code": "rate_limit_exceeded", "message": "slow down"}
WITHOUT_ID = {k: v for k, v in call_item("gun").items() if k != "call_id"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
ODD = {"type": "hologram", "id": "h_1", "shape": {"x": 1}}

CASES = [
    Case("HTML with status 200", [Raw(200, "<html>Sign in</html>", content_type="text/html")], "error", None, 1, 0, "not_a_completion"),
    Case("a JSON string with status 200", [Raw(200, '"hello"')], "error", None, 1, 0, "not_a_completion", only="whole"),
    Case("a chat completion in place of a response", [Raw(200, '{"object": "chat.completion", "model": "m"}')], "error", None, 1, 0, "no_choices", only="whole"),
    Case("output that is no list", [body(output={"0": 1})], "error", None, 1, 0, "no_choices", only="whole"),
    Case("empty output", [body()], "error", None, 1, 0, "no_choices", only="whole"),
    Case("output of items that are none", [body(output=[None, 3, "x"])], "error", None, 1, 0, "no_choices", only="whole"),
    Case("a failed response", [body("failed", error={"code": "invalid_prompt", "message": "bad"})], "error", None, 1, 0, "reply_failed", only="whole"),
    Case("a failure that passes", [body("failed", error={"code": "server_error", "message": "oops"})] * 2, requests=3, query_count=0, only="whole"),
    Case("a response that is too much, twice", [body("failed", error=BUSY)] * 2, requests=3, query_count=0, only="whole"),
    Case("a failure without a word", [body("failed", error=None)], "error", None, 1, 0, "reply_failed", only="whole"),
    Case("a cancelled response", [body("cancelled")], "error", None, 1, 0, "reply_failed", only="whole"),
    Case("truncated JSON", [Raw(200, '{"id": "r", "outp')], "error", None, 1, 0, "not_a_completion", only="whole"),
    Case("a stream cut after its first words", [events(CREATED, WORD, cut=True)], "error", None, 1, 0, "broken_off", only="stream"),
    Case("a stream cut before any word is begun again", [events(CREATED, cut=True)], requests=2, query_count=0, only="stream"),
    Case("a stream that just stops after words", [events(CREATED, WORD)], "error", None, 1, 0, "broken_off", only="stream"),
    Case("a failure at the end of a stream", [events(CREATED, {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x", "message": "bad"}, "output": []}})], "error", None, 1, 0, "reply_failed", only="stream"),
    Case("an error event", [events(CREATED, {"type": "error", "code": "server_error", "message": "oops"})], requests=2, query_count=0, only="stream"),
    Case("an error event after words", [events(CREATED, WORD, {"type": "error", "code": "server_error", "message": "oops"})], "error", None, 1, 0, "reply_failed", only="stream"),
    Case("an empty stream", [Drip(["data: [DONE]\n\n"])], "error", None, 1, 0, "no_choices", only="stream"),
    Case("a stream of garbage", [Drip(["data: not json\n\n"])], "error", None, 1, 0, "not_a_completion", only="stream"),
    Case("events of unknown kinds", [events(CREATED, {"type": "response.hologram", "x": 1}, {"type": "response.completed", "response": {"status": "completed", "output": [message_item("No.")]}})], requests=1, query_count=0, only="stream"),
    Case("a last event without output", [events(CREATED, DONE_CALL, {"type": "response.completed", "response": {"status": "completed", "output": []}})], only="stream"),
    Case("a call without an id", [response_with(WITHOUT_ID)]),
    Case("a number for an id", [response_with({**call_item("gun"), "call_id": 7})]),
    Case("two calls of one id", [response_with(call_item("gun", id="c"), call_item("shop", id="c"))], query_count=2),
    Case("one id in two turns", [response_with(call_item("gun", id="c")), response_with(call_item("shop", id="c"))], requests=3, query_count=2),
    Case("arguments that are no JSON", [response_with(call_item(arguments='{"situation": "gu'))], query_count=0, result_text="not valid JSON"),
    Case("no arguments", [response_with(call_item(arguments=""))], query_count=0, result_text="not valid JSON"),
    Case("arguments as an object", [body(output=[{**call_item("gun"), "arguments": {"situation": "gun"}}])], only="whole"),
    Case("an unknown tool", [response_with(call_item("gun", name="web_search"))], query_count=0, result_text="no tool 'web_search'"),
    Case("items of unknown kinds", [body(output=[SEARCH, ODD, call_item("gun")])], only="whole"),
    Case("endless identical calls", [response_with(call_item("gun", id=f"c{n}")) for n in range(9)], "limit", None, 3, 1),
    Case("a call as text", [response_with(message_item('<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "gun"}}</tool_call>'))]),
    Case("a thought and nothing else", [body(output=[reasoning_item("Hm.")])], answer=None, requests=1, query_count=0, only="whole"),
    Case("content that is no list", [body(output=[{**message_item(""), "content": "No."}])], answer=None, requests=1, query_count=0, only="whole"),
    Case("429 twice", [Raw(429, "{}", {"retry-after": "0"})] * 2, requests=3, query_count=0),
    Case("503 in plain text", [Raw(503, "down", content_type="text/plain")], requests=2, query_count=0),
    Case("404", [Raw(404, '{"error": {"message": "no such route"}}')], "error", None, 1, 0, "http_404"),
    Case("a redirect", [Raw(307, "", {"location": "http://127.0.0.1:9/v1"})], "error", None, 1, 0, "http_307"),
    Case("usage of a wrong type", [body(output=[message_item("No.")], usage="none", model=[])], requests=1, query_count=0, only="whole"),
]  # fmt: skip
FORMS = [
    pytest.param(case, form == "stream", id=f"{case.name} ({form})")
    for case in CASES
    for form in ("whole", "stream")
    if case.only in (None, form)
]


@pytest.mark.parametrize(("case", "stream"), FORMS)
def test_an_odd_conversation_ends_as_it_must_and_nothing_is_lost(
    rules: ScriptedRules, tmp_path: Path, case: Case, stream: bool
) -> None:
    rules.consultations.clear()
    episode, endpoint = answered(case.script, rules, stream=stream, retry=FAST_RETRY)
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(episode)
    assert validate_log(tmp_path / "log.jsonl") == (1, [])
    assert read_log(tmp_path / "log.jsonl").episodes == [episode]
    assert (episode.stop_reason, episode.answer) == (case.stop, case.answer), episode.error
    assert (episode.error.type if episode.error else None) == case.error
    assert len(endpoint.requests) == case.requests
    assert len(rules.consultations) == case.query_count
    for request in endpoint.requests:
        items = request["input"]
        calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
        outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
        assert calls == outputs
        assert len(set(calls)) == len(calls)
        assert all(isinstance(i["arguments"], str) for i in items if i.get("type") == "function_call")
    last = endpoint.requests[-1]["input"]
    for before in endpoint.requests:
        assert last[: len(before["input"])] == before["input"]
    if case.result_text is not None:
        assert case.result_text in last[-1]["output"]
