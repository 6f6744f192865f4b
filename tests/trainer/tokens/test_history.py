"""Earlier turns of a conversation are part of the prompt: they carry no loss and do not set the mode."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import FAMILIES, build_tokenizer
from trainer.tokens import consultations_of, episode_tokens, mode_of
from trainer.tokens.rendering import render_training_tokens

PARAMETERS = {"type": "object", "properties": {"situation": {"type": "string"}}, "required": ["situation"]}
FUNCTION = {"name": "consult_safety_rules", "description": "Looks up rules.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]


def conversation(consulted_before: bool, consults: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """Returns the messages and turns of an episode after an earlier turn, and the messages without that."""
    earlier = make_episode("earlier", answer="An earlier answer.", consult=consulted_before).messages
    for message in earlier:
        if message.get("tool_calls"):
            message["tool_calls"][0]["id"] = message["tool_calls"][0]["id"].replace("c1", "c0")
        if "tool_call_id" in message:
            message["tool_call_id"] = "c0"
    episode = make_episode("now", answer="The answer of now.", consult=consults)
    turns = [turn.model_dump() for turn in episode.turns]
    return [*earlier, *episode.messages], turns, episode.messages


def written(tokenizer: Any, tokens: Any) -> str:
    """Returns the text that carries loss."""
    ids = [id for id, flag in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if flag]
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("consulted_before", [False, True])
@pytest.mark.parametrize("consults", [False, True])
def test_only_the_replies_to_the_last_message_carry_loss_and_set_the_mode(
    family: str, consulted_before: bool, consults: bool
) -> None:
    tokenizer = build_tokenizer(family)
    messages, turns, alone = conversation(consulted_before, consults)
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns)
    expected = episode_tokens(tokenizer, alone, TOOLS, turns)
    assert tokens.completion_ids == expected.completion_ids
    assert tokens.loss_mask == expected.loss_mask
    assert tokens.decision == expected.decision
    prompt = tokenizer.decode(tokens.prompt_ids)
    assert "An earlier answer." in prompt
    assert "An earlier answer." not in written(tokenizer, tokens)
    assert mode_of(messages) == ("consult" if consults else "direct")
    assert consultations_of(messages) == int(consults)


def test_a_template_that_drops_earlier_thoughts_does_not_exclude_the_episode() -> None:
    tokenizer = build_tokenizer("qwen3")
    messages, turns, _ = conversation(False, False)
    messages[1]["reasoning_content"] = "Earlier thoughts."
    messages[-1]["reasoning_content"] = "Thoughts of now."
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns)
    assert "Thoughts of now." in written(tokenizer, tokens)
    assert "Earlier thoughts." not in tokenizer.decode(tokens.prompt_ids + tokens.completion_ids)


def test_the_number_of_given_messages_of_the_log_takes_precedence() -> None:
    tokenizer = build_tokenizer("qwen3")
    messages, turns, _ = conversation(False, True)
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns[1:], given=len(messages) - 1)
    assert "consult_safety_rules" not in written(tokenizer, tokens)
    assert "The answer of now." in written(tokenizer, tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("consulted_before", [False, True])
def test_a_demonstration_teaches_only_the_replies_to_its_last_message(
    family: str, consulted_before: bool
) -> None:
    tokenizer = build_tokenizer(family)
    messages, _, alone = conversation(consulted_before, True)
    ids, mask = render_training_tokens(tokenizer, messages, TOOLS)
    learnt = tokenizer.decode([id for id, flag in zip(ids, mask, strict=True) if flag])
    expected_ids, expected_mask = render_training_tokens(tokenizer, alone, TOOLS)
    expected = [id for id, flag in zip(expected_ids, expected_mask, strict=True) if flag]
    assert learnt == tokenizer.decode(expected)
    assert "An earlier answer." in tokenizer.decode(ids)
