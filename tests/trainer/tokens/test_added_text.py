"""Text that a template adds to a reply carries no loss: empty thoughts, ends of truncated replies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import TRL_TEMPLATES, trl_tokenizer
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.tokens import TokenError, call_opening, episode_tokens
from trainer.tokens.written_text import split_added_thoughts

THOUGHTS = "Is it delicate? Let me see"


def tokens_of(tokenizer: Any, *, finish_reason: str = "stop", options: Any = None, **message: Any) -> Any:
    episode = make_episode(answer="", finish_reason=finish_reason)
    messages = [*episode.messages[:-1], {"role": "assistant", **message}]
    turns = [turn.model_dump() for turn in episode.turns]
    return episode_tokens(tokenizer, messages, [], turns, template_options=options)


def loss_text(tokenizer: Any, tokens: Any) -> str:
    pairs = zip(tokens.completion_ids, tokens.loss_mask, strict=True)
    return str(tokenizer.decode([token for token, in_loss in pairs if in_loss]))


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_a_reply_cut_off_in_its_thoughts_ends_with_them(template: str) -> None:
    tokenizer = trl_tokenizer(template)
    try:
        tokens = tokens_of(tokenizer, finish_reason="length", content=None, reasoning_content=THOUGHTS)
    except TokenError:
        return  # the template shows no thoughts: left out and counted
    assert loss_text(tokenizer, tokens).endswith(THOUGHTS)


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_a_reply_cut_off_in_its_content_ends_with_it(template: str) -> None:
    tokenizer = trl_tokenizer(template)
    try:
        tokens = tokens_of(tokenizer, finish_reason="length", content="Bake it for")
    except TokenError:
        return
    assert loss_text(tokenizer, tokens).endswith("Bake it for")


@pytest.mark.parametrize(
    ("template", "prompt_end"),
    [
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_training", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5_think", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("glm4moe", "<|assistant|>\n<think></think>\n"),
    ],
)
def test_an_empty_block_of_thoughts_is_part_of_the_prompt(template: str, prompt_end: str) -> None:
    tokenizer = trl_tokenizer(template)
    tokens = tokens_of(tokenizer, content="Bake it.")
    assert loss_text(tokenizer, tokens).startswith("Bake it.")
    assert tokenizer.decode(tokens.prompt_ids).endswith(prompt_end)
    opening = call_opening(tokenizer, [{"role": "user", "content": "x"}], [])
    assert "think" not in tokenizer.decode(opening["completion_ids"])


@pytest.mark.parametrize(
    "marks", [("[THINK]", "[/THINK]"), ("<|thought>\n", "<thought|>"), ("<r>", "</r>\n")]
)
def test_empty_blocks_of_an_unknown_template_are_found_by_its_own_marks(marks: tuple[str, str]) -> None:
    opening, closing = marks
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        f"{opening}{{{{ m.reasoning_content }}}}{closing}{{% endif %}}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert loss_text(tokenizer, tokens_of(tokenizer, content="Bake it.")) == "Bake it.<|im_end|>"
    thinking = tokens_of(tokenizer, content="Bake it.", reasoning_content="Hm.")
    assert loss_text(tokenizer, thinking) == f"{opening}Hm.{closing}Bake it.<|im_end|>"


def test_thoughts_in_the_content_are_the_policys_and_the_empty_block_before_them_is_dropped() -> None:
    tokenizer = trl_tokenizer("qwen3")
    cut = tokens_of(tokenizer, finish_reason="length", content="<think>\nIs it")
    assert loss_text(tokenizer, cut) == "<think>\nIs it"
    assert tokenizer.decode(cut.prompt_ids).endswith("<|im_start|>assistant\n")
    own = tokens_of(tokenizer, content="<think>\n\n</think>\n\nBake it.")
    assert loss_text(tokenizer, own) == "<think>\n\n</think>\n\nBake it.<|im_end|>"


def test_options_of_the_samplers_template_are_used_in_rendering() -> None:
    tokenizer = trl_tokenizer("qwen3_5_think")
    off = tokens_of(tokenizer, content="Bake it.", options={"enable_thinking": False})
    assert tokenizer.decode(off.prompt_ids).endswith("<think>\n\n</think>\n\n")
    assert loss_text(tokenizer, off) == "Bake it.<|im_end|>"
    tokenizer.chat_template = "{{ day }}" + tokenizer.chat_template
    dated = tokens_of(tokenizer, content="Bake it.", options={"day": "<1 May>"})
    assert tokenizer.decode(dated.prompt_ids).startswith("<1 May>")


@pytest.mark.parametrize(
    ("reply", "content", "added"),
    [
        ("<think>\n\n</think>\n\nA", "A", "<think>\n\n</think>\n\n"),
        ("<b></b>A", "<b></b>A", ""),
        ("A <think></think>", "A <think></think>", ""),
        ("A", "A", ""),
    ],
)
def test_only_an_empty_block_before_the_content_is_added_text(reply: str, content: str, added: str) -> None:
    assert split_added_thoughts(reply, {"content": content}, "assistant", None) == (
        added,
        reply[len(added) :],
    )
