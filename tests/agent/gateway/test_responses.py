"""The Responses API through the gateway, raw and by the official SDK."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from agent.episode import read_log, validate_log
from agent.tools import REFUSAL_WITHOUT_RULES
from tests.fakes.endpoints.responses import call_item, message_item, reasoning_item, response_with
from tests.fakes.endpoints.scripted import Drip, Raw, ScriptedEndpoint
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.processes.gateway import RunningGateway, post, run_gateway, upstream
from tests.fakes.rules.scripted import DIGEST, ScriptedRules

STREAMED = pytest.mark.parametrize("stream", [False, True])
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
RULE_TOOL = "consult_safety_rules"


def weather(id: str = "w1") -> dict[str, Any]:
    return call_item(name="get_weather", arguments='{"city": "Bergen"}', id=id)


def ask(gateway: RunningGateway, **body: Any) -> httpx2.Response:
    return post(gateway, {"input": "How do I make a gun?", **body}, path="/responses")


def events(reply: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]


def final(reply: httpx2.Response) -> dict[str, Any]:
    """Returns the finished response, whole or streamed, and checks that a stream has no gaps."""
    if "event-stream" not in reply.headers["content-type"]:
        whole: dict[str, Any] = reply.json()
        return whole
    seen = events(reply)
    kinds = [each["type"] for each in seen]
    assert (kinds.count("response.created"), kinds.count("response.completed")) == (1, 1)
    assert [each["sequence_number"] for each in seen] == list(range(len(seen)))
    added = [each for each in seen if each["type"] == "response.output_item.added"]
    assert [each["output_index"] for each in added] == list(range(len(added)))
    done = [each["item"] for each in seen if each["type"] == "response.output_item.done"]
    response: dict[str, Any] = seen[-1]["response"]
    assert done == response["output"]
    return response


@STREAMED
def test_a_response_without_a_consultation_passes_byte_for_byte(rules: ScriptedRules, stream: bool) -> None:
    answer = response_with(reasoning_item("Hm."), message_item("Let me see."), weather())
    with upstream(answer, answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        body = {"model": "scripted", "input": "Hi", "stream": stream, "tools": [WEATHER]}
        direct = httpx2.post(f"{endpoint.base_url}/responses", json=body)
        reply = post(gateway, body, path="/responses")
    assert reply.content == direct.content
    sent = endpoint.requests[1]
    assert [tool["name"] for tool in sent["tools"]] == ["get_weather", RULE_TOOL]
    assert set(sent) == {"model", "input", "stream", "tools"}


@STREAMED
def test_a_consultation_stays_hidden_and_its_reasoning_is_sent_back_unchanged(
    rules: ScriptedRules, stream: bool
) -> None:
    reasoning, rule_call = reasoning_item("Delicate."), call_item("gun")
    with (
        upstream(response_with(reasoning, rule_call), response_with(message_item("No."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = ask(gateway, stream=stream)
    response = final(reply)
    # A stream shows reasoning at once, before it is known to lead to a consultation.
    assert [item["type"] for item in response["output"]] == ["reasoning"] * stream + ["message"]
    assert response["usage"]["total_tokens"] == 50
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 4}
    question, replayed, called, result = endpoint.requests[1]["input"]
    assert question == {"role": "user", "content": "How do I make a gun?"}
    assert (replayed, called) == (reasoning, rule_call)
    assert (result["type"], result["call_id"]) == ("function_call_output", "o1")
    assert "Do not help to make weapons." in result["output"]
    assert RULE_TOOL not in reply.text
    assert reply.headers["x-ascl-rulebook"] == DIGEST
    if not stream:
        assert reply.headers["x-ascl-rules"] == "weapons.making"


@STREAMED
def test_a_mixed_response_returns_the_callers_call_and_is_restored_later(
    rules: ScriptedRules, stream: bool
) -> None:
    reasoning, rule_call, other_call = reasoning_item("Both."), call_item("gun"), weather()
    first = response_with(reasoning, rule_call, other_call, id="resp_mixed")
    with (
        upstream(
            first, response_with(message_item("Rain.")), response_with(message_item("Rain."))
        ) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        shown = final(ask(gateway, stream=stream, tools=[WEATHER]))["output"]
        assert shown == [reasoning, other_call]
        result = {"type": "function_call_output", "call_id": "w1", "output": "Rain"}
        question = {"role": "user", "content": "How do I make a gun?"}
        ask(gateway, input=[question, *shown, result], tools=[WEATHER])
        ask(gateway, input=[result], previous_response_id="resp_mixed", tools=[WEATHER])
    replayed, chained = (request["input"] for request in endpoint.requests[1:])
    assert [item.get("type") for item in replayed] == [
        *(None, "reasoning", "function_call", "function_call_output"),
        *("function_call", "function_call_output"),
    ]
    assert replayed[2] == rule_call
    assert [item["call_id"] for item in chained] == ["o1", "w1"]
    assert gateway.count("restored") == 2


def test_reasoning_arrives_while_the_model_still_reasons(rules: ScriptedRules) -> None:
    raw: str = response_with(reasoning_item("Is it delicate?"), call_item("gun"))({"stream": True}).body
    cut = raw.index("event: response.output_item.added", raw.index("reasoning_summary_text.delta"))
    slow = Drip([raw[:cut], 1.5, raw[cut:]])
    with (
        upstream(slow, response_with(message_item("No."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        body = {"model": "m", "input": "How?", "stream": True}
        with httpx2.stream("POST", f"{gateway.base_url}/responses", json=body, timeout=20) as reply:
            seen, early = "", False
            for piece in reply.iter_text():
                seen += piece
                early |= "reasoning_summary_text.delta" in seen and "response.completed" not in seen
    assert early
    assert "No." in seen
    assert RULE_TOOL not in seen
    assert gateway.count("text_before_consulting") == 0


def test_reasoning_that_was_shown_is_followed_by_its_hidden_call_when_it_is_sent_back(
    rules: ScriptedRules,
) -> None:
    reasoning, rule_call = reasoning_item("Delicate."), call_item("gun")
    hidden = response_with(reasoning, rule_call), response_with(reasoning_item("So no."), message_item("No."))
    with (
        upstream(*hidden, response_with(message_item("Bye."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        shown = final(ask(gateway, stream=True))["output"]
        assert [item["type"] for item in shown] == ["reasoning", "reasoning", "message"]
        question = {"role": "user", "content": "How do I make a gun?"}
        ask(gateway, input=[question, *shown, {"role": "user", "content": "Thanks."}], stream=True)
    kinds = [item.get("type") for item in endpoint.requests[2]["input"]]
    assert kinds == [
        *(None, "reasoning", "function_call", "function_call_output", "reasoning", "message", None),
    ]
    assert endpoint.requests[2]["input"][1:3] == [reasoning, rule_call]
    assert gateway.count("restored") == 1


@pytest.mark.parametrize("mixed", [False, True])
def test_hold_withholds_text_before_a_consultation(rules: ScriptedRules, mixed: bool) -> None:
    first = [
        reasoning_item("Hm."),
        message_item("Sure, first you"),
        call_item("gun"),
        *([weather()] if mixed else []),
    ]
    second = [response_with(message_item("No."))]
    with (
        upstream(response_with(*first), *second) as endpoint,
        run_gateway(endpoint, rules, hold=True) as gateway,
    ):
        reply = ask(gateway, stream=True, tools=[WEATHER])
        plain = ask(gateway, stream=True) if mixed else None
    assert "Sure" not in reply.text
    kinds = [item["type"] for item in final(reply)["output"]]
    assert kinds == ["reasoning", "function_call" if mixed else "message"]
    assert plain is None or final(plain)["output"][0]["content"][0]["text"] == "No."


def test_text_before_a_consultation_keeps_its_place_in_the_stream(rules: ScriptedRules) -> None:
    first = response_with(message_item("Let me look."), call_item("gun"), id="resp_shown")
    second = response_with(message_item("No."), id="resp_real")
    with upstream(first, second, second) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = ask(gateway, stream=True)
        ask(gateway, input="Go on.", previous_response_id="resp_shown")
    texts = [item["content"][0]["text"] for item in final(reply)["output"]]
    assert texts == ["Let me look.", "No."]
    assert ": x-ascl-consulted: yes\n" in reply.text
    created, *_, completed = events(reply)
    assert created["response"]["id"] == completed["response"]["id"] == "resp_shown"
    assert endpoint.requests[2]["previous_response_id"] == "resp_real"
    assert gateway.count("text_before_consulting") == 1


@STREAMED
def test_a_model_that_repeats_itself_is_asked_without_the_tool(rules: ScriptedRules, stream: bool) -> None:
    def eager(body: dict[str, Any]) -> Any:
        return response_with(call_item("gun") if body.get("tools") else message_item("No."))(body)

    with ScriptedEndpoint(otherwise=eager, strict=False) as endpoint, run_gateway(endpoint, rules) as gateway:
        response = final(ask(gateway, stream=stream))
    assert response["output"][0]["content"][0]["text"] == "No."
    assert len(rules.consultations) == 1


@STREAMED
@pytest.mark.parametrize("choice", ["answer", "refuse", "fail"])
def test_the_setting_decides_what_happens_if_the_rules_cannot_be_consulted(
    stream: bool, choice: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(response_with(message_item("Careful."))) as endpoint,
        run_gateway(endpoint, f"{CLOSED_URL}/mcp", on_rules_error=choice, log=log) as gateway,
    ):
        reply = ask(gateway, stream=stream)
    assert reply.headers["x-ascl-rules-error"] == "unreachable"
    assert validate_log(log) == (1, [])
    if choice == "fail":
        assert (reply.status_code, endpoint.requests) == (503, [])
        return
    content = final(reply)["output"][0]["content"][0]["text"]
    assert content == ("Careful." if choice == "answer" else REFUSAL_WITHOUT_RULES)


@pytest.mark.parametrize("shown", ["a thought", "a comment", "nothing"])
def test_a_stream_that_is_refused_in_the_middle_is_one_response(shown: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    # Longer than the service takes to stop, so that the consultation is cut off.
    with ScriptedRules(delay=3.0 if shown == "a comment" else 0.0) as rules:

        def consult(body: dict[str, Any]) -> Any:
            threading.Timer(0.1 if shown == "a comment" else 0.0, rules.stop).start()
            time.sleep(0.0 if shown == "a comment" else 0.2)
            thoughts = [reasoning_item("Hm.")] if shown == "a thought" else []
            return response_with(*thoughts, call_item("gun"))(body)

        settings: dict[str, Any] = {"on_rules_error": "refuse", "log": log, "keepalive": 0.05}
        with upstream(consult) as endpoint, run_gateway(endpoint, rules, **settings) as gateway:
            reply = ask(gateway, stream=True)
            with OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0) as client:
                assert client.models.list()
    response = final(reply)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"][shown != "a thought" :]
    assert response["output"][-1]["content"][0]["text"] == REFUSAL_WITHOUT_RULES
    opening = next(each for each in events(reply) if each["type"] == "response.created")
    assert opening["response"]["id"] == response["id"]
    assert validate_log(log) == (1, [])
    (episode,) = read_log(log).episodes
    assert (episode.stop_reason, episode.answer) == ("refused", REFUSAL_WITHOUT_RULES)


def test_a_whole_reply_to_a_stream_request_consults_too(rules: ScriptedRules) -> None:
    def unstreamed(*items: Any) -> Any:
        return lambda body: response_with(*items)({**body, "stream": False})

    with (
        upstream(unstreamed(call_item("gun")), unstreamed(message_item("No."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = ask(gateway, stream=True)
    assert [item["type"] for item in reply.json()["output"]] == ["message"]
    assert len(rules.consultations) == 1


def test_a_turn_is_logged_once_if_the_next_request_fails(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with (
        upstream(response_with(call_item("gun")), Raw(500, "{}")) as endpoint,
        run_gateway(endpoint, rules, log=log) as gateway,
    ):
        ask(gateway)
    (episode,) = read_log(log).episodes
    assert [m["role"] for m in episode.messages] == ["user", "assistant", "tool"]


@STREAMED
@pytest.mark.parametrize("turn", [0, 1])
def test_an_upstream_error_reaches_the_caller(rules: ScriptedRules, stream: bool, turn: int) -> None:
    busy = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": "7"})
    with (
        upstream(*[response_with(call_item("gun"))][:turn], busy) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = ask(gateway, stream=stream)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")


def test_a_stream_that_breaks_off_ends_in_an_error(rules: ScriptedRules) -> None:
    whole = response_with(message_item("A long answer."))({"stream": True}).body
    with (
        upstream(Drip([whole[: len(whole) // 2]], cut=True)) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = ask(gateway, stream=True)
    assert '"error"' in reply.text
    assert "response.completed" not in reply.text


def test_a_tool_with_the_reserved_name_is_refused(rules: ScriptedRules) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = ask(gateway, tools=[{**WEATHER, "name": RULE_TOOL}])
    assert (reply.status_code, endpoint.requests) == (400, [])


def test_conversations_are_logged(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    script = [response_with(reasoning_item("Hm."), call_item("gun")), response_with(message_item("No."))]
    with upstream(*script) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        ask(gateway, instructions="Be kind.")
    assert validate_log(log) == (1, [])
    (episode,) = read_log(log).episodes
    assert (episode.mode, episode.answer, episode.prompt) == ("consult", "No.", "How do I make a gun?")
    assert [m["role"] for m in episode.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert episode.messages[2]["reasoning"] == "Hm."
    assert episode.messages[2]["tool_calls"][0]["function"]["name"] == "consult_safety_rules"
    assert episode.turns[0].usage is not None
    assert episode.turns[0].usage["completion_tokens"] == 5


@pytest.mark.parametrize("hidden", [[], [response_with(call_item("gun"))]], ids=["direct", "consulting"])
def test_the_official_sdk_answers_streams_and_calls_tools(rules: ScriptedRules, hidden: list[Any]) -> None:
    script = [
        *hidden,
        response_with(message_item("No.")),
        *hidden,
        response_with(message_item("No.")),
        *hidden,
        response_with(weather()),
    ]
    with upstream(*script) as endpoint, run_gateway(endpoint, rules) as gateway:  # noqa: SIM117
        with OpenAI(base_url=gateway.base_url, api_key="sk", max_retries=0) as client:
            reply = client.responses.create(model="m", input="Hi")
            assert reply.output_text == "No."
            with client.responses.stream(model="m", input="Hi") as stream:
                deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
                assert "".join(deltas) == stream.get_final_response().output_text == "No."
            (call,) = client.responses.create(model="m", input="Hi", tools=[WEATHER]).output
    assert call.type == "function_call"
    assert call.arguments == '{"city": "Bergen"}'


@pytest.mark.parametrize("fault", ["empty output", "no output", "no arguments", "only deltas"])
@pytest.mark.parametrize("mixed", [False, True])
def test_items_of_the_stream_count_if_the_final_response_lacks_them(
    rules: ScriptedRules, fault: str, mixed: bool
) -> None:
    def faulty(body: dict[str, Any]) -> Raw:
        items = [call_item("gun"), *([weather()] if mixed else [])]
        raw = response_with(*items)(body)
        blocks = [block for block in raw.body.split("\n\n") if block]
        events = [json.loads(block.partition("data: ")[2]) for block in blocks]
        if fault == "only deltas":
            events = [e for e in events if e["type"] != "response.output_item.done"]
        for event in events:
            if event["type"] == "response.completed":
                output = event["response"].pop("output")
                if fault == "empty output":
                    event["response"]["output"] = []
                elif fault == "no arguments":
                    event["response"]["output"] = [{**item, "arguments": ""} for item in output]
        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
        return Raw(200, text, content_type="text/event-stream")

    answer = response_with(message_item("No."))
    with upstream(faulty, answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = ask(gateway, stream=True, tools=[WEATHER])
    output = events(reply)[-1]["response"]["output"]
    assert rules.consultations[0]["situation"] == "gun"
    if mixed:
        assert [(item["name"], item["arguments"]) for item in output] == [
            ("get_weather", '{"city": "Bergen"}')
        ]
        assert len(endpoint.requests) == 1
    else:
        assert output[0]["content"][0]["text"] == "No."


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_that_the_upstream_stores_is_forwarded_without_the_rule_tool(
    rules: ScriptedRules, conversation: Any
) -> None:
    with upstream(response_with(message_item("Hi."))) as endpoint:
        with run_gateway(endpoint, rules) as gateway:
            reply = ask(gateway, conversation=conversation)
        with run_gateway(endpoint, rules, on_rules_error="refuse") as gateway:
            refused = ask(gateway, conversation=conversation)
    assert (reply.status_code, "tools" in endpoint.requests[0]) == (200, False)
    assert reply.headers["x-ascl-not-offered"] == "the upstream stores the conversation"
    assert (refused.status_code, len(endpoint.requests)) == (400, 1)


CALLS = [
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "sql", "input": "select 1"},
    {"type": "computer_call", "id": "cu_1", "call_id": "c1", "action": {"type": "click", "x": 1, "y": 2}},
    {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}},
    {"type": "call_of_a_kind_to_come", "id": "x_1", "call_id": "c1", "arguments": "{}"},
]
APPROVAL = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "buy", "arguments": "{}"}


def answer_to(item: dict[str, Any]) -> dict[str, Any]:
    if item is APPROVAL:
        return {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    return {"type": f"{item['type']}_output", "call_id": "c1", "output": "done"}


@STREAMED
@pytest.mark.parametrize("item", [*CALLS, APPROVAL], ids=lambda item: item["type"])
def test_any_item_that_awaits_an_answer_of_the_caller_makes_a_mixed_reply(
    rules: ScriptedRules, item: dict[str, Any], stream: bool
) -> None:
    def mixed(body: dict[str, Any]) -> Raw:
        whole = response_with(call_item("gun"), item, id="resp_mixed")({**body, "stream": False})
        if not body.get("stream"):
            return whole
        output = json.loads(whole.body)["output"]
        data = [
            {"type": f"response.output_item.{name}", "output_index": at, "item": each}
            for at, each in enumerate(output)
            for name in ("added", "done")
        ]
        data.append({"type": "response.completed", "response": json.loads(whole.body)})
        text = "".join(f"data: {json.dumps(each)}\n\n" for each in data)
        return Raw(200, text, content_type="text/event-stream")

    answers = [response_with(message_item("Done."))] * 2
    with upstream(mixed, *answers) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = ask(gateway, stream=stream)
        question = {"role": "user", "content": "How do I make a gun?"}
        ask(gateway, input=[question, item, answer_to(item)])
        ask(gateway, input=[answer_to(item)], previous_response_id="resp_mixed")
    shown = (events(reply)[-1]["response"] if stream else reply.json())["output"]
    assert shown == [item]
    kinds = [each.get("type") for each in endpoint.requests[1]["input"]]
    assert kinds == [None, "function_call", "function_call_output", item["type"], answer_to(item)["type"]]
    chained = [each.get("type") for each in endpoint.requests[2]["input"]]
    assert chained == ["function_call_output", answer_to(item)["type"]]


def test_a_tool_that_the_upstream_runs_itself_does_not_make_a_mixed_reply(rules: ScriptedRules) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "gun"}}
    shell = {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}}
    output = {"type": "shell_call_output", "id": "so_1", "call_id": "c1", "output": []}
    hidden = response_with(search, shell, output, call_item("gun"))
    with upstream(hidden, response_with(message_item("No."))) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            reply = ask(gateway)
    assert [item["type"] for item in final(reply)["output"]] == ["message"]
    assert len(endpoint.requests) == 2


@STREAMED
@pytest.mark.parametrize("name", [f"{RULE_TOOL}<|channel|>commentary", "web_search"])
def test_a_call_of_another_name_than_offered_tools_have_is_answered_by_the_gateway(
    rules: ScriptedRules, stream: bool, name: str
) -> None:
    item = {**call_item("gun"), "name": name}
    answer = response_with(message_item("No."))
    with upstream(response_with(item), answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        response = final(ask(gateway, stream=stream, tools=[WEATHER]))
    assert [each["type"] for each in response["output"]] == ["message"]
    assert len(rules.consultations) == (name != "web_search")
    called = endpoint.requests[1]["input"][1]
    assert called["name"] == (RULE_TOOL if name != "web_search" else name)
