"""Failures of the rule service, the upstream, the network and the request, as the application sees them."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import read_log, validate_log
from agent.gateway import rule_offer
from agent.tools import REFUSAL_WITHOUT_RULES, RULES_UNREACHABLE
from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.endpoints.scripted import Drip, Raw, call
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.processes.gateway import chunks, parse_reply, post, run_gateway, upstream
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules

GUN = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}
RULE_TOOL = "consult_safety_rules"
STREAMED = pytest.mark.parametrize("stream", [False, True])


@STREAMED
@pytest.mark.parametrize("down", ["from the start", "later"])
def test_the_setting_decides_what_happens_if_the_rules_cannot_be_consulted(stream: bool, down: str) -> None:
    body = {**GUN, "stream": stream}
    for choice in ("answer", "refuse", "fail"):
        with ScriptedRules() as rules:

            def consult(body: dict[str, Any]) -> Any:
                rules.stop()
                return call("gun")

            url = f"{CLOSED_URL}/mcp" if down == "from the start" else rules.url
            script = ["Careful."] if down == "from the start" else [consult, "Careful."]
            with upstream(*script) as endpoint, run_gateway(endpoint, url, on_rules_error=choice) as gateway:
                reply = post(gateway, body)
        assert reply.headers["x-ascl-rules-error"] == "unreachable"
        assert gateway.count("rules_errors") == 1
        if choice == "answer":
            assert parse_reply(reply)[0] == "Careful."
            assert ("tools" in endpoint.requests[0]) == (down == "later")
            if down == "later":
                assert endpoint.requests[1]["messages"][-1]["content"] == RULES_UNREACHABLE
        elif choice == "refuse":
            assert parse_reply(reply) == (REFUSAL_WITHOUT_RULES, "stop", [])
        else:
            assert reply.status_code == 503
            assert reply.json()["error"]["type"] == "rules_unavailable"


def test_a_strict_gateway_refuses_a_request_that_cannot_have_the_rule_tool(rules: ScriptedRules) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules, on_rules_error="fail") as gateway:
        reply = post(gateway, {**GUN, "n": 2})
    assert (reply.status_code, reply.json()["error"]["type"], endpoint.requests) == (
        400,
        "rules_not_offered",
        [],
    )


@STREAMED
@pytest.mark.parametrize("choice", ["refuse", "fail"])
def test_a_conversation_whose_consultation_failed_is_logged_completely(
    stream: bool, choice: str, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedRules() as rules:

        def consult(body: dict[str, Any]) -> Any:
            rules.stop()
            return call("gun")

        with (
            upstream(consult) as endpoint,
            run_gateway(endpoint, rules, on_rules_error=choice, log=log) as gateway,
        ):
            post(gateway, {**GUN, "stream": stream})
    assert validate_log(log) == (1, [])
    (episode,) = read_log(log).episodes
    roles = [message["role"] for message in episode.messages]
    assert roles == ["user", "assistant", "tool", *(["assistant"] if choice == "refuse" else [])]
    assert episode.messages[1]["tool_calls"][0]["function"]["name"] == RULE_TOOL


def test_an_unresponsive_rule_service_delays_no_request_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, upstream(*["Hello."] * 3) as endpoint:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        with run_gateway(endpoint, url) as gateway:
            replies, waits = [], []
            for _ in range(3):
                start = time.monotonic()
                replies.append(post(gateway, GUN))
                waits.append(time.monotonic() - start)
            health = httpx2.get(f"{gateway.origin}/healthz", timeout=30).json()
    assert [reply.headers["x-ascl-rules-error"] for reply in replies] == ["timeout"] * 3
    assert max(waits) < 20
    assert max(waits[1:]) < 5
    assert health["rules"] == "unreachable"


def test_health_reports_that_the_rule_service_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_offer, "_RETRY_INTERVAL", 0.0)
    with ScriptedRules() as rules, upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        assert httpx2.get(f"{gateway.origin}/healthz").json()["rules"] == "ok"
        rules.stop()
        gone = httpx2.get(f"{gateway.origin}/healthz", timeout=30).json()
    assert gone["rules"] == "unreachable"
    assert "cannot be reached" in gone["detail"]


def test_no_secret_of_an_address_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    url = f"{CLOSED_URL.replace('//', '//me:hunter2@')}/mcp?token=hunter3"
    with upstream("Hi.") as endpoint, run_gateway(endpoint, url, on_rules_error="fail", log=log) as gateway:
        reply = post(gateway, GUN)
        health = httpx2.get(f"{gateway.origin}/healthz", timeout=30).text
    assert reply.status_code == 503
    assert CLOSED_URL in reply.text
    assert "hunter" not in reply.text + health + log.read_text(encoding="utf-8")


@STREAMED
@pytest.mark.parametrize("turn", [0, 1])
def test_an_upstream_error_reaches_the_caller_with_its_status_and_headers(
    rules: ScriptedRules, stream: bool, turn: int
) -> None:
    busy = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": "7"})
    with upstream(*[call("gun")][:turn], busy) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.json() == {"error": {"message": "slow down"}}
    assert len(endpoint.requests) == turn + 1


@STREAMED
def test_an_unreachable_upstream_is_a_502_with_one_sentence(rules: ScriptedRules, stream: bool) -> None:
    with run_gateway(f"{CLOSED_URL}/v1", rules) as gateway:
        reply = post(gateway, {**GUN, "stream": stream})
    assert reply.status_code == 502
    assert reply.json()["error"]["type"] == "upstream_unreachable"


def test_a_stream_that_breaks_off_ends_in_an_error_event(rules: ScriptedRules, tmp_path: Path) -> None:
    begun = 'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
    log = tmp_path / "log.jsonl"
    with upstream(Drip([begun], cut=True)) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.text.startswith(begun)
    assert '"error"' in reply.text
    assert [e.stop_reason for e in read_log(log).episodes] == ["error"]


def test_an_error_in_the_middle_of_a_call_ends_the_reply(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    entry = {"index": 0, "id": "c", "function": {"name": RULE_TOOL, "arguments": '{"situation"'}}
    begun = {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [entry]}}]}
    pieces = [f"data: {json.dumps(each)}\n\n" for each in (begun, {"error": {"message": "overloaded"}})]
    with (
        upstream(Drip([*pieces, "data: [DONE]\n\n"])) as endpoint,
        run_gateway(endpoint, rules, log=log) as gateway,
    ):
        reply = post(gateway, {**GUN, "stream": True})
    assert "overloaded" in reply.text
    assert reply.text.count("[DONE]") == 1
    assert (len(endpoint.requests), rules.consultations) == (1, [])
    assert [e.stop_reason for e in read_log(log).episodes] == ["error"]


def test_half_a_surrogate_pair_breaks_neither_the_reply_nor_the_log(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    cut = {"role": "assistant", "content": "Sure \ud83d"}
    with upstream(cut, cut) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        for _ in range(2):
            question = {"role": "user", "content": "Hello \ud83d"}
            assert post(gateway, {"messages": [question]}).status_code == 200
    assert validate_log(log) == (2, [])
    assert read_log(log).episodes[0].answer == "Sure ?"


@pytest.mark.parametrize(
    "body",
    [
        {"tools": 5},
        {"tools": [{"type": ["x"]}]},
        {"tools": [5]},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": 5}}, "tools": []},
        {"messages": [{"role": "user", "content": 7}, 7, {"role": "assistant", "tool_calls": 7}]},
    ],
)
def test_a_request_of_an_unexpected_form_is_left_to_the_upstream(
    rules: ScriptedRules, tmp_path: Path, body: dict[str, Any]
) -> None:
    with upstream("Hm.") as endpoint, run_gateway(endpoint, rules, log=tmp_path / "log.jsonl") as gateway:
        assert post(gateway, {**GUN, **body}).status_code == 200
    assert len(endpoint.requests) == 1
    assert validate_log(tmp_path / "log.jsonl") == (1, [])


def test_calls_of_any_kind_in_the_callers_history_can_be_logged_and_shown(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    calls = [
        {"type": "custom", "id": "c1", "custom": {"name": "sql", "input": "select 1"}},
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        "?",
    ]
    history = [*GUN["messages"], {"role": "assistant", "tool_calls": calls}]
    with upstream("Hi.") as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        post(gateway, {"messages": history})
    assert endpoint.requests[0]["messages"] == history
    assert validate_log(log) == (1, [])
    (episode,) = read_log(log).episodes
    read = [call["function"] for call in episode.messages[1]["tool_calls"]]
    assert read[0] == {"name": "sql", "arguments": "select 1"}
    assert read[1] == {"name": "f", "arguments": '{"x": 1}'}
    for command in (["show", log, episode.id], ["export", log, "--out", tmp_path / "o", "--to", "otel"]):
        assert CliRunner().invoke(app, [str(each) for each in command]).exit_code == 0


def test_headers_that_are_not_ascii_are_forwarded(rules: ScriptedRules) -> None:
    with upstream("Hi.") as endpoint, run_gateway(endpoint, rules) as gateway:
        body = json.dumps({"model": "m", **GUN}).encode()
        sent = [(b"content-type", b"application/json"), (b"x-title", "Café".encode())]
        reply = httpx2.post(f"{gateway.base_url}/chat/completions", content=body, headers=sent)
    assert reply.status_code == 200
    assert endpoint.headers[0]["x-title"].encode("latin-1") == "Café".encode()


@pytest.mark.parametrize("name", ["../../admin", "%2e%2e/%2e%2e/admin", "a/./b"])
def test_no_model_name_escapes_the_upstreams_models_route(rules: ScriptedRules, name: str) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        host, port = gateway.origin.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as raw:  # HTTP clients normalise such paths
            raw.sendall(
                f"GET /v1/models/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            status = raw.makefile("rb").readline()
    assert b" 404 " in status
    assert endpoint.model_pages == []


def test_a_stream_that_breaks_off_within_a_call_consults_nothing(rules: ScriptedRules) -> None:
    entry = {"index": 0, "id": "c", "function": {"name": RULE_TOOL, "arguments": '{"situation"'}}
    begun = (
        f"data: {json.dumps({'id': 'x', 'choices': [{'index': 0, 'delta': {'tool_calls': [entry]}}]})}\n\n"
    )
    with upstream(Drip([begun])) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.status_code == 502
    assert rules.consultations == []


def test_the_upstream_request_ends_when_the_caller_disconnects(rules: ScriptedRules) -> None:
    piece = 'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
    with upstream(Drip([piece, *[0.05, piece] * 400])) as endpoint, run_gateway(endpoint, rules) as gateway:
        with httpx2.stream(
            "POST", f"{gateway.base_url}/chat/completions", json={**GUN, "stream": True}
        ) as reply:
            next(reply.iter_lines())
        assert endpoint.left.wait(10)


def test_the_upstream_request_ends_when_the_caller_disconnects_before_any_byte(rules: ScriptedRules) -> None:
    drip = Drip([" ", *[0.05, " "] * 400], content_type="application/json")
    with upstream(drip) as endpoint, run_gateway(endpoint, rules) as gateway:
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
def test_a_request_that_no_application_sends_is_refused(
    rules: ScriptedRules, body: bytes, headers: dict[str, str], status: int
) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules, body_limit=4000) as gateway:
        reply = post(gateway, body, headers=headers)
    assert (reply.status_code, endpoint.requests) == (status, [])
    assert reply.json()["error"]["message"]


@STREAMED
def test_headers_of_the_upstream_pass_as_bytes_and_repeated_ones_stay_separate(stream: bool) -> None:
    odd = [(b"x-server", "Zürich".encode()), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), *odd]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b'{"choices": [{"message": {"role": "assistant", "content": "Hi."}}]}'
        await send({"type": "http.response.body", "body": body})

    with ScriptedRules() as rules, LiveServer(answer) as server:  # noqa: SIM117
        with run_gateway(f"{server.origin}/v1", rules) as gateway:
            reply = post(gateway, {**GUN, "stream": stream})
            models = httpx2.get(f"{gateway.base_url}/models")
    for each in (reply, models):
        assert each.status_code == 200
        assert [pair for pair in each.headers.raw if pair in odd] == odd


def test_repeated_headers_of_the_caller_reach_the_upstream(rules: ScriptedRules) -> None:
    with upstream("Hi.") as endpoint, run_gateway(endpoint, rules) as gateway:
        sent = [(b"content-type", b"application/json"), (b"x-tag", b"one"), (b"x-tag", b"two")]
        body = json.dumps({"model": "m", **GUN}).encode()
        httpx2.post(f"{gateway.base_url}/chat/completions", content=body, headers=sent)
    assert endpoint.raw_headers[0].count((b"x-tag", b"one")) == 1
    assert endpoint.raw_headers[0].count((b"x-tag", b"two")) == 1


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_an_upstream_error_after_shown_text_keeps_its_message_code_and_retry_after(
    rules: ScriptedRules, path: str
) -> None:
    busy = Raw(429, '{"error": {"message": "slow down", "code": "rate_limit"}}', {"retry-after": "7"})
    hidden = {
        "/chat/completions": {**call("gun"), "content": "Let me look."},
        "/responses": response_with(message_item("Let me look."), call_item("gun")),
    }[path]
    body = {**GUN, "stream": True} if path == "/chat/completions" else {"input": "How?", "stream": True}
    with upstream(hidden, busy) as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, body, path=path)
    (error,) = [c["error"] for c in chunks(reply) if "error" in c]
    assert (error["message"], error["code"]) == ("slow down", "rate_limit")
    assert (error["status"], error["retry_after"]) == (429, "7")


@pytest.mark.parametrize("silence", ["before the first text", "before a later turn"])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_streaming_caller_hears_something_in_every_phase(
    rules: ScriptedRules, path: str, silence: str
) -> None:
    chat = path == "/chat/completions"
    whole = response_with(message_item("No."), id="resp_1")({"stream": True}).body if not chat else ""
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    opening = (
        f"data: {json.dumps(chunk)}\n\n" if chat else whole[: whole.index("event: response.output_item")]
    )
    text = event_with_text("No.") if chat else whole[len(opening) :]
    end = "data: [DONE]\n\n" if chat else ""
    if silence == "before the first text":
        script = [Drip([": ok\n\n", opening, SILENCE, text, end])]
    else:
        hidden = call("gun") if chat else response_with(call_item("gun"))

        def late(body: dict[str, Any]) -> Drip:
            time.sleep(SILENCE)
            return Drip([opening, text, end])

        script = [hidden, late]
    body = {**GUN, "stream": True} if chat else {"input": "How?", "stream": True}
    start = time.monotonic()
    with (
        upstream(*script) as endpoint,
        run_gateway(endpoint, rules, keepalive=0.2) as gateway,
        httpx2.stream("POST", gateway.base_url + path, json={"model": "m", **body}, timeout=30) as reply,
    ):
        pieces = reply.iter_text()
        first = next(pieces)
        delay = time.monotonic() - start
        rest = "".join(pieces)
    assert delay < SILENCE
    assert ": keepalive\n" in first + rest
    assert "No." in rest


SILENCE = 4.0  # seconds


def event_with_text(text: str) -> str:
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    return f"data: {json.dumps(chunk)}\n\n"


@pytest.mark.parametrize("mixed", [False, True])
def test_a_stream_that_ends_without_a_sign_after_whole_calls_is_complete(
    rules: ScriptedRules, mixed: bool
) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    calls = [call("gun", id="o1"), *([call(arguments="{}", id="w1", name="get_weather")] if mixed else [])]
    entries = [{**m["tool_calls"][0], "index": index} for index, m in enumerate(calls)]
    choices = [
        {"index": 0, "delta": {"role": "assistant", "tool_calls": [e]}, "finish_reason": None}
        for e in entries
    ]
    events = [f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\n\n" for choice in choices]
    with upstream(Drip(events), "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = post(gateway, {**GUN, "stream": True, "tools": [tool]})
    content, finish, shown = parse_reply(reply)
    assert (content, finish) == (("", "tool_calls") if mixed else ("No.", "stop"))
    assert [entry["id"] for entry in shown] == ["w1"] * mixed
    assert len(rules.consultations) == 1


def test_a_connection_that_the_upstream_closes_as_it_is_used_again_is_replaced(rules: ScriptedRules) -> None:
    body = b'{"choices": [{"message": {"role": "assistant", "content": "Hi."}}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    connections: list[int] = []

    def read_request(raw: socket.socket) -> None:
        text = b""
        while b"\r\n\r\n" not in text:
            text += raw.recv(65536)
        length = int(text.lower().partition(b"content-length:")[2].split()[0])
        while len(text.partition(b"\r\n\r\n")[2]) < length:
            text += raw.recv(65536)

    def serve(server: socket.socket) -> None:
        for number in range(2):
            raw, _ = server.accept()
            with raw:
                connections.append(number)
                read_request(raw)
                raw.sendall(head + body)
                if number == 0:
                    read_request(raw)  # and close without a reply

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        with run_gateway(f"http://127.0.0.1:{server.getsockname()[1]}/v1", rules) as gateway:
            statuses = [post(gateway, GUN).status_code for _ in range(2)]
        thread.join(10)
    assert (statuses, len(connections)) == ([200, 200], 2)


def test_comments_follow_no_head_of_a_whole_reply(rules: ScriptedRules) -> None:
    def whole(body: dict[str, Any]) -> Raw:
        choice = {"message": call("gun"), "finish_reason": "tool_calls"}
        return Raw(200, json.dumps({"choices": [choice]}))

    def late(body: dict[str, Any]) -> Raw:
        time.sleep(0.8)
        return Raw(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "No."}}]}))

    with upstream(whole, late) as endpoint, run_gateway(endpoint, rules, keepalive=0.1) as gateway:
        reply = post(gateway, {**GUN, "stream": True})
    assert reply.json()["choices"][0]["message"]["content"] == "No."
