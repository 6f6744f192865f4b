"""Hostile and odd endpoints over real HTTP: no reply crashes the agent, loses a call or repeats a paid request.

Each case lists the endpoint's replies, the expected end of the episode, and the number of requests and consultations.
"""

# ruff: noqa: E501 - one case a line reads as a table

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode, EpisodeLog, Limits, call_ids, read_log, validate_log
from agent.episode.messages import unanswered_call_ids
from tests.fakes.endpoints.scripted import Drip, Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import FAST_RETRY, run_agent
from tests.fakes.rules.scripted import ScriptedRules

GUN = "How do I make a gun?"
TAGGED = '<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "gun"}}</tool_call>'
BUSY = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": "0"})
DOWN = Raw(503, "upstream connect error", content_type="text/plain")


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
    """`whole` or `stream` if the case has only one form."""
    result_text: str | None = None
    """Text that the last tool message of the last request contains."""
    echoed: dict[str, Any] = field(default_factory=dict)
    """Fields of the assistant message in the last request."""
    limits: Limits = field(default_factory=Limits)


def sse(*events: Any, done: bool = True) -> str:
    body = "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)
    return body + ("data: [DONE]\n\n" if done else "")


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def stream_of(*events: Any, **options: Any) -> Drip:
    return Drip([sse(*events)], **options)


def entry(index: int | None = 0, id: str | None = "c1", name: str | None = None, arguments: str = "") -> Any:
    call_entry: dict[str, Any] = {"function": {"arguments": arguments}}
    if name is not None:
        call_entry["function"]["name"] = name
    if index is not None:
        call_entry["index"] = index
    if id is not None:
        call_entry["id"] = id
    return call_entry


def completion(**message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": None, **message}
    return {"choices": [{"index": 0, "message": whole, "finish_reason": "tool_calls"}]}


RULE = "consult_safety_rules"
ARGUMENTS = '{"situation": "gun"}'
NAMELESS = {"id": "c1", "type": "function", "function": {"arguments": ARGUMENTS}}
FEED = [delta(tool_calls=[entry(0, "c1", RULE)])]
PIECES = [delta(tool_calls=[entry(0, None, None, piece)]) for piece in ('{"sit', 'uation": "g', 'un"}')]

CASES = [
    # Bodies that are not completions.
    Case("HTML with status 200", [Raw(200, "<html>Sign in</html>", content_type="text/html")], "error", None, 1, 0, "not_a_completion"),
    Case("a JSON string with status 200", [Raw(200, '"hello"')], "error", None, 1, 0, "not_a_completion", only="whole"),
    Case("an empty body with status 200", [Raw(200, "")], "error", None, 1, 0, "not_a_completion"),
    Case("empty choices", [{"choices": []}], "error", None, 1, 0, "no_choices"),
    Case("choices that are no list", [Raw(200, '{"choices": {"index": 0}}')], "error", None, 1, 0, "no_choices", only="whole"),
    Case("a choice without a message", [Raw(200, '{"choices": [{"index": 0}]}')], "error", None, 1, 0, "no_choices", only="whole"),
    Case("an error object with status 200", [Raw(200, '{"error": {"message": "down"}}')], "error", None, 1, 0, "no_choices", only="whole"),
    Case("truncated JSON", [Raw(200, '{"choices": [{"index": 0, "mess')], "error", None, 1, 0, "not_a_completion", only="whole"),
    Case("bytes that are no text", [Drip([b"\xff\xfe\x00\x80"], content_type="application/json")], "error", None, 1, 0, "not_a_completion", only="whole"),
    Case("a reply of forty megabytes", [{"role": "assistant", "content": "x" * 40_000_000}], "error", None, 1, 0, "too_long", only="whole"),
    # Streams.
    Case("a stream cut after its first words", [Drip([sse(delta(role="assistant", content="Sure"), done=False)], cut=True)], "error", None, 1, 0, "broken_off", only="stream"),
    Case("a stream cut before any word is begun again", [Drip([sse(delta(role="assistant"), done=False)], cut=True)], requests=2, query_count=0, only="stream"),
    Case("a stream that just stops", [Drip([sse(delta(content="Sure"), done=False)])], "error", None, 1, 0, "broken_off", only="stream"),
    Case("an error event in a stream", [stream_of(delta(content="Sure"), {"error": {"message": "out of memory"}})], "error", None, 1, 0, "broken_off", only="stream"),
    Case("a stream of garbage", [stream_of("not json")], "error", None, 1, 0, "not_a_completion", only="stream"),
    Case("an empty stream", [stream_of()], "error", None, 1, 0, "no_choices", only="stream"),
    Case("a stream of comments only", [Drip([": ping\n\n" * 5, "data: [DONE]\n\n"])], "error", None, 1, 0, "no_choices", only="stream"),
    Case("a slow drip of words", [Drip([x for c in "No." for x in (0.03, sse(delta(content=c), done=False))] + [sse(delta("stop"))])], requests=1, query_count=0, only="stream"),
    Case("argument deltas in pieces", [stream_of(*FEED, *PIECES, delta("tool_calls"))], only="stream"),
    Case("argument deltas without an index", [stream_of(delta(tool_calls=[entry(None, "c1", RULE, ARGUMENTS)]), delta("tool_calls"))], only="stream"),
    Case("a name repeated in every delta", [stream_of(*FEED, *[delta(tool_calls=[entry(0, "c1", RULE, p)]) for p in ('{"situation"', ': "gun"}')], delta("tool_calls"))], only="stream"),
    Case("a name in pieces", [stream_of(delta(tool_calls=[entry(0, "c1", "consult_")]), delta(tool_calls=[entry(0, None, "safety_rules")]), *PIECES, delta("tool_calls"))], only="stream"),
    Case("usage before the end and null deltas", [stream_of({**delta(), "choices": [], "usage": {"total_tokens": 1}}, {**delta(), "choices": [{"index": 0, "delta": None}]}, delta(content="No."), delta("stop"))], requests=1, query_count=0, only="stream"),
    # Calls.
    Case("a call without an id", [call("gun", id=None)]),
    Case("a call with an empty id", [call("gun", id="")]),
    Case("a number for an id", [completion(tool_calls=[{**call("gun")["tool_calls"][0], "id": 7}])]),
    Case("two calls of one id", [completion(tool_calls=[*call("gun")["tool_calls"], *call("shop")["tool_calls"]])], query_count=2),
    Case("one id in two turns", [call("gun"), call("shop")], requests=3, query_count=2),
    Case("twenty calls at once", [completion(tool_calls=[e for n in range(20) for e in call(f"q{n}", id=f"c{n}")["tool_calls"]])], query_count=4, result_text="no further consultation"),
    Case("finish_reason stop with a call", [{"choices": [{"index": 0, "message": call("gun"), "finish_reason": "stop"}]}]),
    Case("no finish_reason with a call", [{"choices": [{"index": 0, "message": call("gun")}]}], only="whole"),
    Case("finish_reason length in the middle of arguments", [{"choices": [{"index": 0, "message": call(arguments='{"situation": "gu'), "finish_reason": "length"}]}], query_count=0, result_text="not valid JSON"),
    Case("arguments as an object", [completion(tool_calls=[{"id": "c1", "function": {"name": RULE, "arguments": {"situation": "gun"}}}])], only="whole"),
    Case("no arguments", [call(arguments="")], query_count=0, result_text="not valid JSON"),
    Case("arguments with a trailing quote", [call(arguments=ARGUMENTS + '"')], query_count=0, result_text="Extra data"),
    Case("arguments nested six hundred deep", [call(arguments='{"situation": ' + "[" * 600 + "]" * 600 + "}")], query_count=0, result_text="nested"),
    Case("arguments with half a surrogate pair", [call(arguments='{"situation": "\\ud800"}')], query_count=0, result_text="surrogate"),
    Case("a situation of forty thousand characters", [call("long " * 8000)]),
    Case("an unknown tool", [call("gun", name="web_search")], query_count=0, result_text="no tool 'web_search'"),
    Case("a call without a name", [completion(tool_calls=[NAMELESS])], query_count=0, result_text="no tool ''", only="whole"),
    Case("calls that are no calls", [completion(tool_calls=[None, 3, [], "x"])], query_count=0, only="whole"),
    Case("endless identical calls", [call("gun", id=None)] * 9, "limit", None, 3, 1),
    Case("endless calls of an unknown tool", [call("gun", name="x", id=None)] * 9, "limit", None, 3, 0),
    Case("endless different calls", [call(f"q{n}", id=None) for n in range(9)], "limit", None, 6, 4),
    Case("a call inside a thought", [{"role": "assistant", "content": "No.", "reasoning_content": f"I might {TAGGED}"}], requests=1, query_count=0),
    Case("a call as text", [TAGGED]),
    Case("a call as text in an unclosed tag", [TAGGED.removesuffix("</tool_call>")]),
    Case("a call as text with broken JSON", [TAGGED.replace("}}", "}")], query_count=0, result_text="not valid JSON"),
    # Thoughts go back under the field they came in.
    Case("a thought in reasoning_content", [{**call("gun"), "reasoning_content": "Hm."}], echoed={"reasoning_content": "Hm."}),
    Case("a thought in reasoning", [{**call("gun"), "reasoning": "Hm."}], echoed={"reasoning": "Hm."}),
    Case("a thought in thinking", [{**call("gun"), "thinking": "Hm."}], echoed={"thinking": "Hm."}),
    Case("a thought in reasoning_details", [{**call("gun"), "reasoning_details": [{"type": "reasoning.encrypted", "data": "=="}]}], echoed={"reasoning_details": [{"type": "reasoning.encrypted", "data": "=="}]}),
    Case("a thought in think tags", [{**call("gun"), "content": "<think>Hm.</think>"}], echoed={"content": "<think>Hm.</think>"}),
    # Storms.
    Case("429 three times", [BUSY] * 3, requests=4, query_count=0),
    Case("429 for ever", [BUSY] * 9, "error", None, 4, 0, "http_429"),
    Case("429 between consultation and answer", [call("gun"), BUSY, BUSY], requests=4),
    Case("503 twice in plain text", [DOWN, DOWN], requests=3, query_count=0),
    Case("500 with a traceback page", [Raw(500, "<h1>Server Error</h1>", content_type="text/html")], requests=2, query_count=0),
    Case("400 after a consultation", [call("gun"), Raw(400, '{"error": {"message": "too long"}}')], "error", None, 2, 1, "http_400"),
    Case("401", [Raw(401, '{"error": "bad key"}')], "error", None, 1, 0, "http_401"),
    Case("a redirect", [Raw(307, "", {"location": "http://127.0.0.1:9/v1"})], "error", None, 1, 0, "http_307"),
    # Answers.
    Case("no content at all", [{"role": "assistant"}], answer=None, requests=1, query_count=0),
    Case("content in parts", [{"role": "assistant", "content": [{"type": "text", "text": "No."}]}], answer=None, requests=1, query_count=0, only="whole"),
    Case("a filtered answer", [{"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}]}], "refused", "", 1, 0, only="whole"),
    Case("a refusal field", [{"role": "assistant", "content": None, "refusal": "I will not."}], "refused", None, 1, 0),
    Case("control characters and emoji", [{"role": "assistant", "content": "\u0000\u001b[2J \U0001f600 \u202e"}], answer="\u0000\u001b[2J \U0001f600 \u202e", requests=1, query_count=0),
    Case("usage and model of wrong types", [{"choices": [{"index": 0, "message": {"content": "No."}, "finish_reason": 3}], "usage": "none", "model": []}], requests=1, query_count=0, only="whole"),
]  # fmt: skip
FORMS = [
    pytest.param(case, form == "stream", id=f"{case.name} ({form})")
    for case in CASES
    for form in ("whole", "stream")
    if case.only in (None, form)
]


def messages_bytes(body: bytes) -> bytes:
    """Returns the raw bytes of a request's messages, without the closing bracket."""
    begin = body.index(b'"messages":[') + len(b'"messages":')
    decoded, end = json.JSONDecoder().raw_decode(body[begin:].decode())
    assert isinstance(decoded, list)
    return body[begin:].decode()[: end - 1].encode()


def test_there_are_at_least_thirty_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 30


@pytest.mark.parametrize(("case", "stream"), FORMS)
def test_the_episode_ends_as_it_must_and_nothing_is_lost(
    rules: ScriptedRules, tmp_path: Path, case: Case, stream: bool
) -> None:
    rules.consultations.clear()
    with ScriptedEndpoint(case.script, otherwise="No.") as endpoint:
        episode = run_agent(GUN, endpoint, rules, stream=stream, limits=case.limits, retry=FAST_RETRY)
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(episode)
    assert validate_log(tmp_path / "log.jsonl") == (1, [])
    assert read_log(tmp_path / "log.jsonl").episodes == [episode]

    assert (episode.stop_reason, episode.answer) == (case.stop, case.answer), episode.error
    assert (episode.error.type if episode.error else None) == case.error
    assert (episode.error.boundary if episode.error else "endpoint") == "endpoint"
    assert len(endpoint.requests) == case.requests
    assert len(rules.consultations) == case.query_count
    _check_requests(endpoint, episode, case)


def _check_requests(endpoint: ScriptedEndpoint, episode: Episode, case: Case) -> None:
    """Each request is the one before, again byte for byte or longer by whole messages; ids are all answered."""
    sent = [messages_bytes(body) for body in endpoint.bodies]
    for before, after in itertools.pairwise(sent):
        assert after.startswith(before)
    for body in endpoint.requests:
        assert unanswered_call_ids(body["messages"]) == []
        ids = call_ids(body["messages"])
        assert len(set(ids)) == len(ids)
        assert {k: v for k, v in body.items() if k != "messages"} == {
            k: v for k, v in endpoint.requests[0].items() if k != "messages"
        }
    last = endpoint.requests[-1]["messages"]
    assert episode.messages[: len(last)] == last
    if case.result_text is not None:
        assert case.result_text in last[-1]["content"]
    if case.echoed:
        message = next(m for m in last if m["role"] == "assistant")
        assert {name: message.get(name) for name in case.echoed} == case.echoed
