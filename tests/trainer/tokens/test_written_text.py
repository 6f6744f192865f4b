"""The loss covers everything that the policy wrote and nothing else, for every template that TRL ships."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import TRL_TEMPLATES, build_tokenizer, trl_tokenizer
from trainer.tokens import RenderingError, TokenError, episode_tokens
from trainer.tokens.rendering import render_training_tokens
from trainer.tokens.written_text import MissingTextError, written_end

ANSWER = "Bake it for an hour."
SITUATION = 'a "delicate" request, für später'
ARGUMENTS = json.dumps({"situation": SITUATION})
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "consult_safety_rules",
            "description": "Looks rules up.",
            "parameters": {"type": "object", "properties": {"situation": {"type": "string"}}},
        },
    }
]


def conversation(*, consult: bool, thoughts: bool, calls: int = 1) -> tuple[list[Any], list[Any]]:
    """Returns messages and turns of an episode."""
    episode = make_episode(answer=ANSWER, consult=consult, arguments=ARGUMENTS)
    messages = [dict(message) for message in episode.messages]
    if calls == 2:
        second = {**messages[1]["tool_calls"][0], "id": "c2"}
        messages[1]["tool_calls"] = [*messages[1]["tool_calls"], second]
        messages.insert(3, {**messages[2], "tool_call_id": "c2"})
    if thoughts:
        for number, index in enumerate(i for i, m in enumerate(messages) if m["role"] == "assistant"):
            messages[index]["reasoning_content"] = f"Thought {number}: is it delicate?"
    return messages, [turn.model_dump() for turn in episode.turns]


CASES: dict[str, dict[str, Any]] = {
    "direct": {"consult": False, "thoughts": False},
    "direct with thoughts": {"consult": False, "thoughts": True},
    "consult": {"consult": True, "thoughts": False},
    "consult with thoughts": {"consult": True, "thoughts": True},
    "two calls": {"consult": True, "thoughts": False, "calls": 2},
}


def assert_holds(text: str, messages: list[Any], *, empty_thoughts: bool = False) -> None:
    """Asserts that loss text holds thoughts, calls and the answer, and nothing of the template's.

    Args:
        empty_thoughts: allow empty blocks of thoughts, as in demonstrations.
    """
    assert text.count(ANSWER) == 1
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    assert text.count("consult_safety_rules") >= len(calls)
    forms = (SITUATION, *(json.dumps(SITUATION, ensure_ascii=flag)[1:-1] for flag in (True, False)))
    assert sum(text.count(form) for form in set(forms)) == len(calls)
    for message in messages:
        if thought := message.get("reasoning_content"):
            assert text.count(thought) == 1
    for foreign in (
        "prompt p1",
        "[a.b] A rule",
        "Looks rules up",
        "<|im_start|>",
        "<|turn>model",
        "<|user|>\n",
    ):
        assert foreign not in text


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_kept_episodes_carry_loss_on_all_that_the_policy_wrote_and_on_nothing_else(template: str) -> None:
    tokenizer = trl_tokenizer(template)
    for case in CASES.values():
        messages, turns = conversation(**case)
        try:
            tokens = episode_tokens(tokenizer, messages, TOOLS, turns)
        except TokenError:
            continue  # left out and counted
        ids = [t for t, in_loss in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if in_loss]
        assert_holds(tokenizer.decode(ids), messages)


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_kept_demonstrations_hold_all_that_the_assistant_wrote(template: str) -> None:
    tokenizer = trl_tokenizer(template)
    for case in CASES.values():
        messages, _ = conversation(**case)
        try:
            ids, mask = render_training_tokens(tokenizer, messages, TOOLS)
        except ValueError:  # left out and counted, or refused because the template has no marks
            continue
        marked = [t for t, in_loss in zip(ids, mask, strict=True) if in_loss]
        assert_holds(tokenizer.decode(marked), messages, empty_thoughts=True)


@pytest.mark.parametrize(
    ("template", "case", "field"),
    [
        ("llama3", "consult", "calls"),
        ("lfm2", "consult", "calls"),
        ("gptoss", "two calls", "calls"),
        ("qwen2_5", "direct with thoughts", "thoughts"),
        ("qwen2_5", "consult with thoughts", "thoughts"),
        ("gemma4_v2", "direct with thoughts", "thoughts"),
        ("smolvlm", "direct", "content"),
    ],
)
def test_a_template_that_leaves_something_out_leaves_the_episode_out(
    template: str, case: str, field: str
) -> None:
    messages, turns = conversation(**CASES[case])
    with pytest.raises(TokenError, match=f"its template leaves out {field}"):
        episode_tokens(trl_tokenizer(template), messages, TOOLS, turns)


def test_a_demonstration_whose_calls_the_template_drops_is_left_out() -> None:
    messages, _ = conversation(**CASES["consult"])
    with pytest.raises(RenderingError, match="its template leaves out calls"):
        render_training_tokens(trl_tokenizer("llama3_training"), messages, TOOLS)


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5_think", "glm4moe", "gptoss", "muse_glimmer", "phi3"])
def test_templates_that_show_direct_answers_keep_them(template: str) -> None:
    messages, turns = conversation(**CASES["direct"])
    assert 1 in episode_tokens(trl_tokenizer(template), messages, TOOLS, turns).loss_mask


def test_the_end_token_of_the_whole_conversation_carries_no_loss() -> None:
    tokenizer = trl_tokenizer("phi3")
    messages, turns = conversation(**CASES["direct"])
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns)
    assert tokenizer.decode(tokens.completion_ids) == f"{ANSWER}<|end|>"


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("reply", "message", "missing"),
    [
        ("Yes.", {"content": "Yes.", "reasoning_content": "Yes."}, "content"),
        ("Yes. Yes.", {"content": "Yes.", "reasoning_content": "Yes."}, None),
        ("Yes.", {"content": "  Yes.\n"}, None),
        ("Yes", {"content": "Yes, of course"}, "content"),
        ("", {"content": None}, None),
        ("T\n</think>\nA", {"content": "<think>T</think>A"}, None),
        ("A", {"content": "<think>T</think>A"}, "content"),
        ("Hello there", {"content": [{"type": "text", "text": "Hello"}]}, None),
        ("look {'x': 2.5}", {"tool_calls": [call("look", '{"x": 2.5}')]}, None),
        ("look", {"tool_calls": [call("look", '{"x": 2.5}')]}, "calls"),
        ("look", {"tool_calls": [call("look", "{}")]}, None),
        ("look", {"tool_calls": [call("look", "{}"), call("look", "{}")]}, "calls"),
        ("I look it up.", {"content": "I look it up.", "tool_calls": [call("look", "{}")]}, "calls"),
        ("look x true y", {"tool_calls": [call("look", '{"x": true, "y": []}')]}, None),
        ("look x True", {"tool_calls": [call("look", '{"x": true}')]}, None),
        ('look "x": "a\\nb"', {"tool_calls": [call("look", '{"x": "a\\nb"}')]}, None),
        ("look {'x", {"tool_calls": [call("look", "{'x")]}, None),
        ("look", {"tool_calls": [call("look", "{'x")]}, "calls"),
    ],
)
def test_every_field_of_a_message_must_be_in_the_reply(
    reply: str, message: dict[str, Any], missing: str | None
) -> None:
    if missing is None:
        assert 0 <= written_end(reply, message) <= len(reply)
    else:
        with pytest.raises(MissingTextError, match=missing):
            written_end(reply, message)


def test_arguments_that_are_not_json_must_be_in_the_reply() -> None:
    tokenizer = build_tokenizer("smollm2")
    episode = make_episode(answer=ANSWER, consult=True, arguments='{"situation": ')
    turns = [turn.model_dump() for turn in episode.turns]
    assert 1 in episode_tokens(tokenizer, episode.messages, TOOLS, turns).loss_mask
