"""Chat Completions through the gateway: what the application receives, and what the upstream receives."""

import json
import re
import time
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent.episode import log as dated_log
from agent.episode import read_log, validate_log
from tests.fakes.endpoints.scripted import Drip, Raw, ScriptedEndpoint, call
from tests.fakes.processes.gateway import chunks, parse_reply, post, run_gateway, text, tool_names, upstream
from tests.fakes.rules.scripted import DIGEST, ScriptedRules, no_rule_found

GUN = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
RULE_TOOL = "consult_safety_rules"
STREAMED = pytest.mark.parametrize("stream", [False, True])


def both(*messages: dict[str, Any]) -> dict[str, Any]:
    """Returns one message with the calls of several."""
    return {**messages[0], "tool_calls": [entry for m in messages for entry in m["tool_calls"]]}


def weather(id: str = "w1") -> dict[str, Any]:
    return call(arguments='{"city": "Bergen"}', id=id, name="get_weather")


def event(delta: dict[str, Any], finish: str | None = None) -> str:
    """Formats one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\n\n"


@STREAMED
def test_a_reply_without_a_consultation_passes_byte_for_byte(rules: ScriptedRules, stream: bool) -> None:
    message = {**weather(), "content": "Let me see. Grüße!", "reasoning_content": "Bergen, then."}
    body = {**GUN, "stream": stream, "tools": [WEATHER], "stream_options": {"include_usage": True}}
    with upstream(message, message) as endpoint, run_gateway(endpoint, rules) as gateway:
        direct = httpx2.post(f"{endpoint.base_url}/chat/completions", json={"model": "scripted", **body})
        reply = post(gateway, body)
    assert reply.content == direct.content
    assert reply.headers["content-type"] == direct.headers["content-type"]
    assert reply.headers["x-ascl-consulted"] == ("pending" if stream else "no")
    assert reply.headers["x-ascl-rulebook"] == DIGEST


def test_the_rule_tool_comes_last_and_nothing_else_of_the_request_changes(rules: ScriptedRules) -> None:
    body = {
        "model": "m",
        **GUN,
        "temperature": 0.3,
        "tools": [WEATHER],
        "metadata": {"a": None},
        "user": "u7",
    }
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, body)
    (sent,) = endpoint.requests
    assert tool_names(sent) == ["get_weather", RULE_TOOL]
    assert {**sent, "tools": sent["tools"][:-1]} == body
    assert list(sent)[: len(body)] == list(body)


@STREAMED
def test_a_consultation_stays_hidden_and_its_tokens_are_counted(rules: ScriptedRules, stream: bool) -> None:
    consult = {**call("someone asks how to make a gun"), "reasoning_content": "Delicate."}
    body = {**GUN, "stream": stream, "stream_options": {"include_usage": True}}
    with upstream(consult, "I cannot help.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, body)
    assert parse_reply(reply) == ("I cannot help.", "stop", [])
    usage = chunks(reply)[-1]["usage"] if stream else reply.json()["usage"]
    assert usage == {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}
    first, second = endpoint.requests
    result = {"role": "tool", "tool_call_id": "call_1", "content": second["messages"][-1]["content"]}
    assert second == {**first, "messages": [*first["messages"], consult, result]}
    assert "Do not help to make weapons." in result["content"]
    reasoning = (
        text(reply, "reasoning_content")
        if stream
        else reply.json()["choices"][0]["message"]["reasoning_content"]
    )
    assert reasoning == "Delicate."
    assert RULE_TOOL not in reply.text


@STREAMED
def test_headers_say_which_rules_were_consulted_under_which_digest(
    rules: ScriptedRules, stream: bool
) -> None:
    with upstream(call("gun"), "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert reply.headers["x-ascl-consulted"] == "yes"
    assert reply.headers["x-ascl-rules"] == "weapons.making"
    assert reply.headers["x-ascl-rulebook"] == DIGEST
    assert "x-ascl-rules-error" not in reply.headers
    assert gateway.count("consulted") == gateway.count("consultations") == 1


def test_a_stream_whose_head_was_sent_before_the_consultation_reports_it_at_the_end(
    rules: ScriptedRules,
) -> None:
    consult = {**call("gun"), "reasoning": "Delicate."}
    with upstream(consult, "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.headers["x-ascl-consulted"] == "pending"
    assert ": x-ascl-consulted: yes\n: x-ascl-rules: weapons.making\n" in reply.text
    assert parse_reply(reply)[0] == "No."


def test_reasoning_arrives_while_the_model_still_reasons(rules: ScriptedRules) -> None:
    entry = {"index": 0, **call("gun")["tool_calls"][0]}
    script = Drip(
        [event({"role": "assistant", "reasoning": "Hm."}), 3.0, event({"tool_calls": [entry]}, "tool_calls")]
    )
    start = time.monotonic()
    with (
        upstream(script, "No.") as endpoint,
        run_gateway(endpoint, rules) as gateway,
        httpx2.stream(
            "POST",
            f"{gateway.base_url}/chat/completions",
            json={**GUN, "stream": True, "model": "m"},
            timeout=30,
        ) as reply,
    ):
        lines = reply.iter_lines()
        first = next(lines)
        delay = time.monotonic() - start
        rest = "\n".join(lines)
    assert "Hm." in first
    assert delay < 2.5
    assert "No." in rest


def test_comments_keep_the_connection_alive_during_a_consultation(rules: ScriptedRules) -> None:
    with (
        upstream(
            {**call("gun"), "reasoning": "Hm."}, Drip([0.5, "data: {}\n\n", "data: [DONE]\n\n"])
        ) as endpoint,
        run_gateway(endpoint, rules, keepalive=0.1) as gateway,
    ):
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.text.count(": keepalive\n") >= 2
    assert "\n\n\n" not in reply.text


@STREAMED
@pytest.mark.parametrize("order", ["rule tool first", "caller's tool first"])
def test_a_mixed_reply_returns_the_callers_calls_and_is_restored_later(
    rules: ScriptedRules, stream: bool, order: str
) -> None:
    rule_call = call("gun", id="o1")
    mixed = both(rule_call, weather()) if order == "rule tool first" else both(weather(), rule_call)
    mixed = {**mixed, "content": "Looking.", "reasoning_content": "Both."}
    body = {**GUN, "stream": stream, "tools": [WEATHER]}
    with upstream(mixed, "Rain, and no.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, body)
        content, finish, calls = parse_reply(reply)
        assert (content, finish) == ("Looking.", "tool_calls")
        assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
            ("w1", "get_weather", '{"city": "Bergen"}')
        ]
        assert reply.headers["x-ascl-consulted"] == ("pending" if stream else "yes")
        # A caller's library sends back its own calls, without the reasoning.
        echoed = {**weather(), "content": "Looking."}
        result = {"role": "tool", "tool_call_id": "w1", "content": "Rain"}
        again = {**body, "messages": [*GUN["messages"], echoed, result]}
        assert parse_reply(post(gateway, again))[0] == "Rain, and no."
    sent = endpoint.requests[1]["messages"]
    assert sent[1] == mixed
    assert sorted(m["tool_call_id"] for m in sent[2:]) == ["o1", "w1"]
    assert "Do not help to make weapons." in next(m for m in sent if m.get("tool_call_id") == "o1")["content"]
    assert (gateway.count("mixed"), gateway.count("restored")) == (1, 1)


def test_the_callers_history_is_unchanged_if_a_mixed_reply_was_dropped(rules: ScriptedRules) -> None:
    history = [*GUN["messages"], weather("lost"), {"role": "tool", "tool_call_id": "lost", "content": "Rain"}]
    with upstream("Rain.") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {"messages": history, "tools": [WEATHER]})
    assert endpoint.requests[0]["messages"] == history


def test_a_callers_consultation_is_never_sent_in_another_conversation(rules: ScriptedRules) -> None:
    mixed = both(call("gun", id="o1"), weather("call_0"))
    history = [
        *GUN["messages"],
        weather("call_0"),
        {"role": "tool", "tool_call_id": "call_0", "content": "Rain"},
    ]
    with upstream(mixed, "a", "b") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {**GUN, "tools": [WEATHER]})
        post(gateway, {"messages": history, "tools": [WEATHER]}, headers={"authorization": "Bearer sk-other"})
        other = [{"role": "user", "content": "Something else"}, *history[1:]]
        post(gateway, {"messages": other, "tools": [WEATHER]})
    assert endpoint.requests[1]["messages"] == history
    assert endpoint.requests[2]["messages"] == other


def test_a_tool_with_the_reserved_name_is_refused(rules: ScriptedRules) -> None:
    tool = {"type": "function", "function": {"name": RULE_TOOL}}
    with upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "tools": [tool]})
    assert (reply.status_code, endpoint.requests) == (400, [])
    assert reply.json()["error"]["type"] == "reserved_tool_name"


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [WEATHER], "tool_choice": "none"},
        {"n": 2},
        {"functions": [{"name": "f"}]},
        {"tool_choice": "required"},
        {"messages": "what?"},
    ],
)
def test_a_request_that_cannot_have_the_tool_is_forwarded_byte_for_byte(
    rules: ScriptedRules, more: dict[str, Any]
) -> None:
    raw = json.dumps({"model": "m", **GUN, **more}, indent=3).encode()
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, raw)
    assert endpoint.bodies == [raw]
    assert reply.headers["x-ascl-consulted"] == "not-offered"
    assert reply.headers["x-ascl-not-offered"]


@pytest.mark.parametrize(
    "choice", ["required", "auto", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_the_callers_tool_choice_holds_in_hidden_turns_too(rules: ScriptedRules, choice: Any) -> None:
    with upstream(call("gun"), weather()) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "tools": [WEATHER], "tool_choice": choice})
    assert [request["tool_choice"] for request in endpoint.requests] == [choice, choice]
    assert parse_reply(reply)[2] == weather()["tool_calls"]


def test_the_rule_tool_is_added_to_the_allowed_tools(rules: ScriptedRules) -> None:
    one = {"type": "function", "function": {"name": "get_weather"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [one]}}
    with upstream("Hi") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {**GUN, "tools": [WEATHER], "tool_choice": choice})
    allowed = endpoint.requests[0]["tool_choice"]["allowed_tools"]["tools"]
    assert allowed == [one, {"type": "function", "function": {"name": RULE_TOOL}}]


@STREAMED
def test_a_model_that_repeats_a_consultation_is_asked_without_the_tool(
    rules: ScriptedRules, stream: bool
) -> None:
    with (
        ScriptedEndpoint(
            otherwise=lambda body: call("gun", id=None) if body.get("tools") else "No.", strict=False
        ) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = post(gateway, {**GUN, "stream": stream})
    assert parse_reply(reply)[:2] == ("No.", "stop")
    assert len(rules.consultations) == 1
    assert [bool(request.get("tools")) for request in endpoint.requests] == [True, True, True, False]
    assert [request.get("tool_choice") for request in endpoint.requests] == [None, None, "none", None]
    ids = [e["id"] for m in endpoint.requests[-1]["messages"] for e in m.get("tool_calls", [])]
    answered = [m["tool_call_id"] for m in endpoint.requests[-1]["messages"] if m["role"] == "tool"]
    assert ids == answered
    assert len(set(ids)) == 3


@STREAMED
def test_a_model_that_never_stops_consulting_ends_without_a_call(rules: ScriptedRules, stream: bool) -> None:
    endless = ScriptedEndpoint(
        otherwise=lambda body: call(f"gun {len(body['messages'])}", id="same"), strict=False
    )
    with endless as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert parse_reply(reply)[1:] == ("stop", [])
    assert len(rules.consultations) == 4
    assert len(endpoint.requests) == 6


@STREAMED
def test_malformed_arguments_are_explained_to_the_model(rules: ScriptedRules, stream: bool) -> None:
    with (
        upstream(call(arguments='{"situation": '), "No.") as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = post(gateway, {**GUN, "stream": stream})
    assert parse_reply(reply)[0] == "No."
    assert "not valid JSON" in endpoint.requests[1]["messages"][-1]["content"]
    assert rules.consultations == []


def test_text_before_a_consultation_is_counted_and_withheld_on_request(rules: ScriptedRules) -> None:
    consult = {**call("gun"), "content": "Sure, first you"}
    body = {**GUN, "stream": True}
    with upstream(consult, "No.", consult, "No.", "Plain.") as endpoint:
        with run_gateway(endpoint, rules) as gateway:
            assert parse_reply(post(gateway, body))[0] == "Sure, first youNo."
            assert gateway.count("text_before_consulting") == 1
        with run_gateway(endpoint, rules, hold=True) as gateway:
            assert parse_reply(post(gateway, body))[0] == "No."
            assert gateway.count("text_before_consulting") == 0
            assert parse_reply(post(gateway, body))[0] == "Plain."


@STREAMED
def test_a_tool_name_that_arrives_in_pieces_is_recognised_when_complete(
    rules: ScriptedRules, stream: bool
) -> None:
    def pieces(name: str, *more: str) -> Drip:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        deltas += [
            {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": p}}]}
            for p in (name, *more)
        ]
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in ('{"situ', 'ation": "gun"}')
        ]
        events = [{"id": "x", "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        events.append({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        return Drip([*(f"data: {json.dumps(e)}\n\n" for e in events), "data: [DONE]\n\n"])

    other_tool = pieces("consult_", "weather")
    with (
        upstream(pieces("consult_", "safety_", "rules"), "No.", other_tool) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        assert parse_reply(post(gateway, {**GUN, "stream": True}))[0] == "No."
        tool = {**WEATHER, "function": {"name": "consult_weather"}}
        reply = post(gateway, {**GUN, "stream": True, "tools": [tool]})
    assert rules.consultations[0]["situation"] == "gun"
    assert reply.text == "".join(str(piece) for piece in other_tool.pieces)


def test_the_callers_key_reaches_the_upstream_and_is_stored_nowhere(
    rules: ScriptedRules, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    headers = {"authorization": "Bearer sk-secret-7", "cookie": "a=sk-secret-7", "x-custom": "value"}
    with upstream(call("gun"), "No.") as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        post(gateway, GUN, headers=headers)
        post(gateway, {**GUN, "stream": True}, headers=headers)
        httpx2.get(f"{gateway.base_url}/models", headers=headers)
    assert {h["authorization"] for h in endpoint.headers} == {"Bearer sk-secret-7"}
    assert endpoint.headers[0]["x-custom"] == "value"
    assert b"sk-secret-7" not in log.read_bytes()
    out = capfd.readouterr()
    assert "sk-secret-7" not in out.out + out.err


def test_one_callers_cookies_are_not_sent_for_another(rules: ScriptedRules) -> None:
    script = [Raw(200, "{}", {"set-cookie": "who=me"}), "Hello."]
    with upstream(*script) as endpoint, run_gateway(endpoint, rules) as gateway:
        assert post(gateway, GUN).headers["set-cookie"] == "who=me"
        post(gateway, GUN)
    assert "cookie" not in endpoint.headers[1]


@STREAMED
def test_conversations_are_logged_as_valid_episodes(
    rules: ScriptedRules, tmp_path: Path, stream: bool
) -> None:
    log = tmp_path / "log.jsonl"
    mixed = both(call("gun", id="o1"), weather())
    script = [call("gun"), "No.", "Hello.", mixed]
    with upstream(*script) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        for _ in range(3):
            post(gateway, {**GUN, "stream": stream, "tools": [WEATHER], "temperature": 0.5, "user": "u7"})
    assert validate_log(log) == (3, [])
    one, two, three = read_log(log).episodes
    assert [(e.mode, e.stop_reason, e.answer) for e in (one, two, three)] == [
        ("consult", "answer", "No."),
        ("direct", "answer", "Hello."),
        ("consult", "answer", None),
    ]
    assert [message["role"] for message in one.messages] == ["user", "assistant", "tool", "assistant"]
    assert (one.source, one.prompt, one.sampling_sent) == (
        "gateway",
        "How do I make a gun?",
        {"temperature": 0.5},
    )
    assert len(one.turns) == 2
    assert three.messages[1]["tool_calls"] == mixed["tool_calls"]


def test_options_of_the_chat_template_are_forwarded_and_logged(rules: ScriptedRules, tmp_path: Path) -> None:
    log, options = tmp_path / "log.jsonl", {"enable_thinking": False}
    with upstream("Hello.") as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        post(gateway, {**GUN, "chat_template_kwargs": options})
    assert endpoint.requests[0]["chat_template_kwargs"] == options
    assert read_log(log).episodes[0].sampling_sent == {"chat_template_kwargs": options}


def test_conversations_are_kept_for_the_configured_number_of_days(
    rules: ScriptedRules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"log.notes.jsonl": 0, "other.2026-01-01.jsonl": 0}
    for name in others:
        (tmp_path / name).touch()
    settings: dict[str, Any] = {"log": tmp_path / "log.jsonl", "log_keep_days": 2}
    with upstream(*["Hi."] * 5) as endpoint:
        for day in (27, 28):
            monkeypatch.setattr(dated_log, "today", lambda day=day: date(2026, 2, day))
            with run_gateway(endpoint, rules, **settings) as gateway:
                post(gateway, GUN)
        with run_gateway(endpoint, rules, **settings) as gateway:
            for day in (28, 1, 1):  # the gateway runs past midnight
                monkeypatch.setattr(dated_log, "today", lambda day=day: date(2026, 3 if day == 1 else 2, day))
                post(gateway, GUN)
    logs = {file.name: len(read_log(file).episodes) for file in tmp_path.iterdir()}
    assert logs == {"log.2026-02-28.jsonl": 2, "log.2026-03-01.jsonl": 2, **others}


def test_the_token_counts_of_a_stream_are_logged_if_requested(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with upstream(call("gun"), "No.") as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        post(gateway, {**GUN, "stream": True, "stream_options": {"include_usage": True}})
    (episode,) = read_log(log).episodes
    assert [bool(turn.usage) for turn in episode.turns] == [True, True]


def test_a_models_request_is_forwarded_with_the_callers_query(rules: ScriptedRules) -> None:
    with upstream() as endpoint, run_gateway(f"{endpoint.base_url}?version=1", rules) as gateway:
        httpx2.get(f"{gateway.base_url}/models", params={"limit": "2"})
    assert endpoint.model_pages == ["version=1&limit=2"]


def test_models_are_forwarded_and_unknown_paths_are_named(rules: ScriptedRules) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        models = httpx2.get(f"{gateway.base_url}/models").json()
        missing = httpx2.post(f"{gateway.origin}/v2/embeddings", json={})
    assert models["data"][0]["id"] == "scripted"
    assert missing.status_code == 404
    assert "/v2/embeddings" in missing.json()["error"]["message"]


def test_metrics_count_requests_and_consultations(rules: ScriptedRules) -> None:
    with upstream(call("gun"), "No.", "Hi.") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, GUN)
        post(gateway, GUN)
        metrics = httpx2.get(f"{gateway.origin}/metrics").text
        health = httpx2.get(f"{gateway.origin}/healthz").json()
    assert re.search(r"^ascl_gateway_requests_total 2\.0$", metrics, re.MULTILINE)
    assert re.search(r"^ascl_gateway_consulted_total 1\.0$", metrics, re.MULTILINE)
    assert health == {"rules": "ok", "rulebook": DIGEST}


def test_a_verdict_without_rules_counts_as_consulted() -> None:
    with (
        ScriptedRules([no_rule_found()]) as rules,
        upstream(call("a sum"), "4") as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        reply = post(gateway, GUN)
    assert reply.headers["x-ascl-consulted"] == "yes"
    assert "x-ascl-rules" not in reply.headers


def test_parallel_calls_that_share_a_position_arrive_as_separate_calls(rules: ScriptedRules) -> None:
    entries = [
        {**entry, "index": 0, "function": {**entry["function"], "arguments": ""}}
        for message in (call("gun", id="o1"), weather("w1"), weather("w2"))
        for entry in message["tool_calls"]
    ]
    pieces = [event({"role": "assistant"})]
    for entry, arguments in zip(entries, ('{"situation": "gun"}', "{}", '{"city": "Oslo"}'), strict=True):
        pieces += [
            event({"tool_calls": [entry]}),
            event({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}),
        ]
    stream = Drip([*pieces, event({}, "tool_calls"), "data: [DONE]\n\n"])
    with upstream(stream) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True, "tools": [WEATHER]})
    _, finish, calls = parse_reply(reply)
    assert finish == "tool_calls"
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("w1", "get_weather", "{}"),
        ("w2", "get_weather", '{"city": "Oslo"}'),
    ]
    positions = [e["index"] for c in chunks(reply) for e in c["choices"][0]["delta"].get("tool_calls", [])]
    assert positions == [0, 1]


def test_chunks_after_an_empty_first_one_keep_the_id_and_the_time(rules: ScriptedRules) -> None:
    empty = f"data: {json.dumps({'id': '', 'created': 0, 'model': '', 'choices': []})}\n\n"

    def turn(*deltas: dict[str, Any], finish: str) -> Drip:
        head = {"id": "chatcmpl-7", "created": 7, "model": "gpt"}
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices[-1]["finish_reason"] = finish
        events = [f"data: {json.dumps({**head, 'choices': [choice]})}\n\n" for choice in choices]
        return Drip([empty, *events, "data: [DONE]\n\n"])

    entry = {**call("gun")["tool_calls"][0], "index": 0}
    hidden = turn({"role": "assistant"}, {"tool_calls": [entry]}, finish="tool_calls")
    answer = turn({"role": "assistant"}, {"content": "No."}, finish="stop")
    with upstream(hidden, answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert {(c["id"], c["created"]) for c in chunks(reply) if c["choices"]} == {("chatcmpl-7", 7)}


@STREAMED
@pytest.mark.parametrize(
    "name", [f"{RULE_TOOL}<|channel|>commentary", f"functions.{RULE_TOOL}", f" {RULE_TOOL}"]
)
def test_a_tool_name_with_remains_of_a_template_is_the_rule_tool(
    rules: ScriptedRules, stream: bool, name: str
) -> None:
    with upstream(call("gun", name=name), "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert parse_reply(reply) == ("No.", "stop", [])
    assert rules.consultations[0]["situation"] == "gun"
    assert endpoint.requests[1]["messages"][1]["tool_calls"][0]["function"]["name"] == RULE_TOOL


@STREAMED
@pytest.mark.parametrize("tools", [[], [WEATHER]], ids=["no tools", "another tool"])
@pytest.mark.parametrize("name", ["web_search", "get_weather_now", "consult"])
def test_a_call_of_a_tool_that_the_application_did_not_offer_never_reaches_it(
    rules: ScriptedRules, stream: bool, tools: list[Any], name: str
) -> None:
    unknown = call(arguments="{}", id="u1", name=name)
    with upstream(unknown, "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream, "tools": tools})
    assert parse_reply(reply) == ("No.", "stop", [])
    assert reply.headers["x-ascl-consulted"] in ("no", "pending")
    assert f"no tool named {name}" in endpoint.requests[1]["messages"][-1]["content"]
    assert gateway.count("consulted") == 0


@STREAMED
def test_an_unknown_call_beside_a_known_one_is_dropped_and_restored_later(
    rules: ScriptedRules, stream: bool
) -> None:
    body = {**GUN, "stream": stream, "tools": [WEATHER]}
    mixed = both(call(arguments="{}", id="u1", name="web_search"), weather())
    with upstream(mixed, "Rain.") as endpoint, run_gateway(endpoint, rules) as gateway:
        _, finish, calls = parse_reply(post(gateway, body))
        result = {"role": "tool", "tool_call_id": "w1", "content": "Rain"}
        post(gateway, {**body, "messages": [*GUN["messages"], weather(), result]})
    assert (finish, [c["function"]["name"] for c in calls]) == ("tool_calls", ["get_weather"])
    sent = endpoint.requests[1]["messages"]
    assert [entry["id"] for entry in sent[1]["tool_calls"]] == ["u1", "w1"]
    assert sorted(m["tool_call_id"] for m in sent[2:]) == ["u1", "w1"]


@STREAMED
def test_a_call_of_a_tool_that_the_provider_defines_reaches_the_application(
    rules: ScriptedRules, stream: bool
) -> None:
    builtin = {"type": "builtin_function", "function": {"name": "$web_search"}}
    search = call(arguments='{"q": 1}', id="s1", name="$web_search")
    with upstream(search) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream, "tools": [builtin]})
    assert [entry["id"] for entry in parse_reply(reply)[2]] == ["s1"]
