"""Parsing of tool calls, valid and malformed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.endpoint import parse_arguments, parse_reply, tool_messages, truncate
from agent.episode.messages import unanswered_call_ids

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    JSON
    | st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"name": JSON, "arguments": JSON})}, optional={"id": JSON}
    ),
    max_size=4,
)
TEXTS = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", '{"name": "look"', ', "arguments": {}}', "{", "}", "words"]
    )
).map("".join)


def read(message: dict[str, Any], *, text_mode: bool = False) -> Any:
    return parse_reply(message, turn=0, offered=["look"], taken={"old"}, text_mode=text_mode)


@given(calls=CALLS, content=st.none() | TEXTS, text_mode=st.booleans())
def test_every_call_has_a_unique_id_and_one_answer(
    calls: list[Any], content: str | None, text_mode: bool
) -> None:
    reply = read({"role": "assistant", "content": content, "tool_calls": calls}, text_mode=text_mode)
    ids = [call.id for call in reply.calls]
    assert len({"old", *ids}) == len(ids) + 1
    assert all((call.parsed is None) == (call.problem is not None) for call in reply.calls)
    assert (reply.source is None) == (not reply.calls)
    if reply.source:
        answers = tool_messages(reply.calls, ["result"] * len(ids), reply.source, text_mode)
        assert unanswered_call_ids([reply.message, *answers]) == []


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "not valid JSON"),
        ('{"a": NaN}', "NaN is not a JSON value"),
        ('{"a": 1} trailing', "Extra data"),
        ('"text"', "expected a JSON object, not str"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_arguments_that_are_not_a_json_object_are_rejected_with_the_reason(raw: str, reason: str) -> None:
    parsed, problem = parse_arguments(raw)
    assert parsed is None
    assert reason in str(problem)


def test_arguments_sent_as_an_object_are_taken() -> None:
    entry = {"id": "a", "function": {"name": "look", "arguments": {"x": 1}}}
    reply = read({"role": "assistant", "content": None, "tool_calls": [entry]})
    assert reply.calls[0].parsed == {"x": 1}
    assert reply.message["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'


def test_a_tag_that_was_never_closed_is_read_to_the_end() -> None:
    reply = read({"role": "assistant", "content": '<tool_call>{"name": "look", "arguments": {"x": 1}}'})
    assert [(call.name, call.parsed) for call in reply.calls] == [("look", {"x": 1})]
    assert reply.message["content"] == ""


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("look<|channel|>commentary", "look"),
        ("look<|constrain|>json", "look"),
        ("functions.look", "look"),
        ("functions.look:0", "look"),
        (" look\n", "look"),
        ("<|tool|>look", "<|tool|>look"),
        ("look_up", "look_up"),
        ("look.up", "look.up"),
        ("overlook", "overlook"),
    ],
)
def test_remains_of_a_template_around_the_name_of_an_offered_tool_are_removed(
    name: str, cleaned: str
) -> None:
    function = {"name": name, "arguments": "{}"}
    reply = read({"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": function}]})
    assert reply.calls[0].name == reply.message["tool_calls"][0]["function"]["name"] == cleaned
    tagged = read({"role": "assistant", "content": f"<tool_call>{json.dumps(function)}</tool_call>"})
    assert [call.name for call in tagged.calls] == ([cleaned] if cleaned == "look" else [])


def test_a_replayed_reply_gets_the_same_ids() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}] * 2}
    assert [call.id for call in read(message).calls] == [call.id for call in read(message).calls]


def test_long_text_is_shortened_in_its_middle() -> None:
    assert truncate("a" * 10, 10) == "a" * 10
    assert truncate("a" * 500 + "z" * 500, 10).startswith("aaaaa … 990 characters … zzzzz")


def test_a_call_that_the_model_only_thinks_about_is_not_executed() -> None:
    call = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    for thoughts in (f"<think>I could write {call}.</think>", f"I could write {call}.\n</think>\n\n"):
        message = {"role": "assistant", "content": f"{thoughts}It is noon."}
        for text_mode in (True, False):
            reply = read(message, text_mode=text_mode)
            assert (reply.message, reply.calls, reply.source) == (message, [], None)
        called = read({"role": "assistant", "content": f"{thoughts}{call}"})
        assert [call.name for call in called.calls] == ["look"]
        assert called.message["content"] == thoughts.strip()
    unclosed = read({"role": "assistant", "content": f"<think>I ask.\n{call}"})
    assert [call.name for call in unclosed.calls] == ["look"]
