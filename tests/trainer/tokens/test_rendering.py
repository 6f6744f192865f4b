"""Messages in the form that each chat template expects, for every template that TRL ships."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trl

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import FAMILIES, build_tokenizer
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.tokens import episode_tokens
from trainer.tokens.rendering import (
    RenderingError,
    render_training_tokens,
    render_turns,
    template_messages,
    turn_end_ids,
)

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_renders_arguments_as_a_quoted_string_or_a_python_dictionary(
    template: Path, tokenizer: Any
) -> None:
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    episode = make_episode(consult=True)
    texts = []
    # A template may not render tool calls, or TRL may have no training form of it.
    with suppress(RenderingError, ValueError):
        turns = render_turns(tokenizer, episode.messages, [])
        texts.append("".join(turn.prompt + turn.reply for turn in turns))
    with suppress(RenderingError, ValueError):
        ids, mask = render_training_tokens(tokenizer, episode.messages, [])
        texts.append(tokenizer.decode([id for id, in_loss in zip(ids, mask, strict=True) if in_loss]))
    for text in texts:
        assert '\\"situation' not in text
        assert "{'situation'" not in text


def test_a_template_that_concatenates_text_gets_the_arguments_as_json_text(tokenizer: Any) -> None:
    call = make_episode(consult=True).messages[-3]
    logged = call["tool_calls"][0]["function"]["arguments"]
    for text, expected in (
        ("{{ messages[-1].tool_calls[0].function.arguments }}", logged),
        ("{{ 'args: ' + messages[-1].tool_calls[0].function.arguments }}", logged),
        ("{{ messages[-1].tool_calls[0].function.arguments | tojson }}", json.loads(logged)),
        ("{{ messages[-1].tool_calls[0].function.arguments | items | list }}", json.loads(logged)),
    ):
        [message] = template_messages(tokenizer, [call], text)
        assert message["tool_calls"][0]["function"]["arguments"] == expected


ENDS = {
    "smollm2": ["<|im_end|>"],
    "qwen3": ["<|im_end|>"],
    "llama3.1": ["<|eot_id|>"],
    "gpt-oss": ["<|return|>", "<|call|>"],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end_token", [None, "<|endoftext|>"])
def test_the_tokens_that_end_a_turn_are_those_of_the_template_not_of_the_tokenizer(
    family: str, end_token: str | None
) -> None:
    tokenizer = build_tokenizer(family)
    if end_token is not None:
        tokenizer.eos_token = end_token
    assert tokenizer.convert_ids_to_tokens(turn_end_ids(tokenizer)) == ENDS[family]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("after", ["", "\n"])
def test_an_end_token_that_the_tokenizer_does_not_list_ends_a_turn(special: bool, after: str) -> None:
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<eot>", special=special, normalized=False)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<eot>" + after + "{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert tokenizer.convert_ids_to_tokens(turn_end_ids(tokenizer)) == ["<eot>"]
    for reason, expected in (("stop", "Here.<eot>"), ("length", "Here.")):
        episode = make_episode(answer="Here.", finish_reason=reason)
        turns = [turn.model_dump() for turn in episode.turns]
        tokens = episode_tokens(tokenizer, episode.messages, [], turns)
        ids = [id for id, in_loss in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if in_loss]
        assert tokenizer.decode(ids) == expected


def test_a_tokenizer_without_a_template_names_no_turn_ends() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    assert turn_end_ids(tokenizer) == []
