"""Reading of a reply: thoughts, calls in the forms of many models, and the answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.replies import find_calls, opens_thoughts, read_reply
from tests.agent.replies.texts import (
    ANSWERS,
    CALLS,
    MORE_CALLS,
    NAMED,
    NOTHING,
    RULE_TOOL,
    THOUGHTS,
    UNFINISHED_THOUGHTS,
)
from tests.fakes.models.templates import TRL_TEMPLATES, trl_tokenizer

TOOLS = (RULE_TOOL,)
PIECES = sorted(
    {
        *(
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
            "<|python_tag|>",
            "<function=f>",
        ),
        *(
            "<|channel|>analysis",
            "<|message|>",
            "<|end|>",
            "<|start|>assistant",
            " to=functions.f",
            " to=self",
        ),
        *(
            "```",
            "```json\n",
            "`",
            "\n",
            " ",
            '{"name": "f", "arguments": {"a": 1}}',
            NAMED,
            "words of a text. ",
        ),
        *(
            "<｜tool▁calls▁begin｜>",
            "<|tool_call|>",
            "[ARGS]",
            "{",
            "}",
            '"',
            "Action: f\nAction Input:",
            "1. ",
        ),
        *(
            "consult_safety_rules(",
            "consult_safety_rules",
            "<invoke ",
            "[THINK]",
            "[/THINK]",
            "analysis",
            "</s>",
        ),
        *(
            "Here is my thought process:",
            "Let me check ",
            "<consult_safety_rules>",
            "functools[",
            "<tool_response>",
        ),
    }
)


@pytest.mark.parametrize("text", [*CALLS.values(), *MORE_CALLS])
def test_a_call_in_any_known_form_is_a_call_and_not_an_answer(text: str) -> None:
    reply = read_reply(text, TOOLS)
    assert reply.calls
    assert reply.answer == ""


@pytest.mark.parametrize("form", [form for form in CALLS if RULE_TOOL in CALLS[form] and "cut" not in form])
def test_a_call_of_an_offered_tool_has_its_name(form: str) -> None:
    assert RULE_TOOL in {call.name for call in read_reply(CALLS[form], TOOLS).calls}


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_mentions_tags_or_calls_is_unchanged(text: str) -> None:
    reply = read_reply(text, TOOLS)
    assert (reply.answer, reply.content, reply.calls, reply.thoughts) == (text, text, [], "")


@pytest.mark.parametrize("form", THOUGHTS)
def test_thoughts_in_any_known_tags_are_not_part_of_the_answer(form: str) -> None:
    text, answer = THOUGHTS[form]
    reply = read_reply(text, TOOLS)
    assert (reply.answer, reply.calls) == (answer, [])
    assert reply.thoughts
    assert not reply.unfinished_thoughts
    assert not reply.misplaced_thoughts


@pytest.mark.parametrize("text", UNFINISHED_THOUGHTS)
def test_a_reply_that_ends_inside_its_thoughts_has_no_answer(text: str) -> None:
    reply = read_reply(text, TOOLS)
    assert (reply.answer, reply.unfinished_thoughts) == ("", True)
    assert "The user bakes." in reply.thoughts


def test_a_reply_consists_of_thoughts_if_the_prompt_opened_them_and_nothing_closes_them() -> None:
    assert read_reply("6 + 6 gives 12, and then").answer == "6 + 6 gives 12, and then"
    reply = read_reply("6 + 6 gives 12, and then", opened=True)
    assert (reply.answer, reply.thoughts, reply.unfinished_thoughts) == ("", "6 + 6 gives 12, and then", True)
    assert not reply.misplaced_thoughts
    closed = read_reply("6 + 6 gives 12.</think>It is 12.", opened=True)
    assert (closed.answer, closed.opened_in_prompt) == ("It is 12.", True)


@pytest.mark.parametrize("text", NOTHING)
def test_text_without_a_word_says_nothing(text: str) -> None:
    assert read_reply(text, TOOLS).answer == ""


def test_text_before_and_after_a_call_stays_an_answer_unless_it_announces_the_call() -> None:
    assert read_reply(f"Lisbon <tool_call>{NAMED}</tool_call>", TOOLS).answer == "Lisbon"
    invented = f"<tool_call>{NAMED}</tool_call>\n<tool_response>\n[a.b] A rule\n</tool_response>\nLisbon."
    assert read_reply(invented, TOOLS).answer == "Lisbon."
    assert (
        read_reply("Let me check the time: it is noon.", TOOLS).answer == "Let me check the time: it is noon."
    )


def call_reply(tokenizer: Any) -> str | None:
    """Renders a call of the rule tool; returns what the template adds to the prompt, None if it drops it."""
    function = {"name": RULE_TOOL, "arguments": {"situation": "locks on a door"}}
    parameters = {"type": "object", "properties": {"situation": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": RULE_TOOL, "description": "d", "parameters": parameters}}
    ]
    user = {"role": "user", "content": "hi"}
    for arguments in (function["arguments"], '{"situation": "locks on a door"}'):
        for content in ("", None):
            call = {"id": "call00001", "type": "function", "function": {**function, "arguments": arguments}}
            message = {"role": "assistant", "content": content, "tool_calls": [call], "thinking": "Hm."}
            try:
                prompt, whole = (
                    tokenizer.apply_chat_template(
                        messages, tools=tools, tokenize=False, add_generation_prompt=is_prompt
                    )
                    for messages, is_prompt in (([user], True), ([user, message], False))
                )
            except Exception:
                continue
            common = next(
                (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt)
            )
            common -= prompt[:common].endswith("<")  # two tags may begin alike
            if "locks on a door" in whole[common:]:
                return str(whole[common:])
    return None


def test_a_call_that_any_template_of_trl_writes_is_read_back_as_a_call() -> None:
    supporting, unread = [], []
    for name in TRL_TEMPLATES:
        tokenizer = trl_tokenizer(name)
        reply = call_reply(tokenizer)
        if reply is None:
            continue
        supporting.append(name)
        stripped = reply
        for token in tokenizer.all_special_tokens:
            stripped = stripped.replace(token, "")
        for text in (reply, stripped):
            parts = read_reply(text, TOOLS)
            names = [call.name for call in parts.calls]
            if names != [RULE_TOOL] or parts.answer or "locks" not in parts.calls[0].text:
                unread.append((name, text, parts))
    assert unread == []
    assert len(supporting) >= 40


def test_the_prompts_of_thinking_templates_are_known_to_open_thoughts() -> None:
    opening = set()
    for name in TRL_TEMPLATES:
        user = [{"role": "user", "content": "Explain `<think>`: <think>"}]
        try:
            prompt = trl_tokenizer(name).apply_chat_template(user, tokenize=False, add_generation_prompt=True)
        except Exception:
            continue
        if opens_thoughts(prompt):
            opening.add(name.removesuffix("_training"))
    assert opening == {
        *("deepseek_r1_distill", "deepseekv3", "qwen3_5_think", "qwen3_6", "qwen3_8"),
        *("nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "nemotron_3_5_lightning"),
    }


@given(
    text=st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=12).map("".join),
    opened=st.booleans(),
)
def test_any_text_is_read_and_calls_are_in_no_other_part(text: str, opened: bool) -> None:
    reply = read_reply(text, TOOLS, opened=opened)
    assert len(reply.answer) <= len(text)
    for call in reply.calls:
        assert not call.text.strip() or reply.content.count(call.text) < max(text.count(call.text), 1)


@given(text=st.text(alphabet=st.characters(exclude_characters="<>[]{}()|｜◁▷:`"), max_size=300))
def test_a_text_without_a_mark_is_unchanged(text: str) -> None:
    reply = read_reply(text.replace("analysis", ""), TOOLS)
    if RULE_TOOL not in text:
        assert (reply.content, reply.thoughts, reply.calls) == (text.replace("analysis", ""), "", [])


@given(text=st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_the_answer_of_an_answer_has_no_call(text: str) -> None:
    answer = read_reply(text, TOOLS).answer
    assert len(read_reply(answer, TOOLS).answer) <= len(answer)


@pytest.mark.parametrize(
    "piece", [*PIECES, "a", "'", "( ", "\n{", "<", "x\n</think>\n", "Use <think> ", "[f(a=1"]
)
@pytest.mark.timeout(20)  # quadratic time would take minutes
def test_a_hostile_reply_is_read_in_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    assert len(read_reply(text, TOOLS).answer) <= len(text)
    assert all(call.end <= len(text) for call in find_calls(text, [f"tool_{number}" for number in range(50)]))
