"""A chat template may fail in any way: the episode is left out with a cause, and the run continues."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import build_tokenizer
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.tokens import RenderingError, TokenError, call_opening, episode_tokens
from trainer.tokens.rendering import render_training_tokens, turn_end_ids

USER = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
END = "{% endif %}{% endfor %}"
FAULTS = {
    "refuses": "{{ raise_exception('Roles must alternate') }}",
    "division by zero": "{{ 1 / 0 }}",
    "type error": "{{ 'args: ' + 1 }}",
    "missing attribute": "{{ m.nothing.deeper }}",
    "missing index": "{{ [][3] | length + m.x[0] }}",
    "unknown filter argument": "{{ m.content | truncate(length='a') }}",
    "decoding": "{{ m.content.encode('utf-8').decode('utf-16').x.y }}",
    "not a template": "{% if %}",
}


def turns(episode: Any) -> list[dict[str, Any]]:
    return [turn.model_dump() for turn in episode.turns]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_raises_any_error_leaves_the_episode_out_with_its_message(fault: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = USER + FAULTS[fault] + END
    episode = make_episode(consult=True)
    with pytest.raises(TokenError, match="its template cannot render this conversation") as caught:
        episode_tokens(tokenizer, episode.messages, [], turns(episode))
    assert caught.value.detail.startswith("the chat template raised ")
    with pytest.raises(RenderingError):
        call_opening(tokenizer, episode.messages[:1], [])
    assert turn_end_ids(tokenizer) == []
    with pytest.raises(RenderingError, match="its template cannot render this conversation"):
        render_training_tokens(tokenizer, episode.messages, [])


def test_two_calls_in_a_message_that_the_template_forbids_leave_the_episode_out() -> None:
    tokenizer = build_tokenizer("llama3.1")
    tokenizer.chat_template += " "  # TRL knows templates by their exact text
    episode = make_episode(consult=True)
    messages = [dict(message) for message in episode.messages]
    messages[1]["tool_calls"] = messages[1]["tool_calls"] * 2
    with pytest.raises(TokenError, match="cannot render this conversation") as caught:
        episode_tokens(tokenizer, messages, [], turns(episode))
    assert "single tool-calls at once" in caught.value.detail


def test_a_template_unknown_to_trl_that_strips_earlier_thoughts_trains_them_in_their_place() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last and m.thinking %}<think>{{ m.thinking }}</think>{% endif %}"
        "{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    episode = make_episode(consult=True)
    messages = [dict(message) for message in episode.messages]
    messages[1]["reasoning_content"] = "Is it delicate?"
    tokens = episode_tokens(tokenizer, messages, [], turns(episode))
    text = tokenizer.decode(tokens.completion_ids)
    assert text.startswith("<think>Is it delicate?</think>[")
    assert "<|im_end|>\n<|im_start|>tool\n[a.b] A rule<|im_end|>\n" in text
    written = [t for t, in_loss in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if in_loss]
    assert "[a.b] A rule" not in tokenizer.decode(written)
    assert tokenizer.decode(written).endswith("Here you are.<|im_end|>")


def test_a_template_that_drops_earlier_calls_leaves_the_episode_out() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% if loop.last and m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    episode = make_episode(consult=True)
    with pytest.raises(TokenError, match="its template rewrites earlier turns"):
        episode_tokens(tokenizer, episode.messages, [], turns(episode))


def test_a_tokenizer_without_a_template_leaves_the_episode_out() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    episode = make_episode()
    with pytest.raises(TokenError, match="its tokenizer has no chat template"):
        episode_tokens(tokenizer, episode.messages, [], turns(episode))
    with pytest.raises(RenderingError, match="no chat template"):
        render_training_tokens(tokenizer, episode.messages, [])


def test_of_several_named_templates_the_one_for_tools_renders_episodes_with_tools() -> None:
    tokenizer = tiny_tokenizer()
    template = tokenizer.chat_template
    episode = make_episode(consult=True)
    tools = [{"type": "function", "function": {"name": "consult_safety_rules", "parameters": {}}}]
    expected = episode_tokens(tokenizer, episode.messages, tools, turns(episode))
    tokenizer.chat_template = {"default": "{{ 1 / 0 }}", "tool_use": template}
    assert episode_tokens(tokenizer, episode.messages, tools, turns(episode)) == expected
    with pytest.raises(TokenError, match="cannot render"):
        episode_tokens(tokenizer, episode.messages, [], turns(episode))
