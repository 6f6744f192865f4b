"""Messages in the form that each chat template expects, for every template that TRL ships."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trl

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.tokens.rendering import (
    RenderingError,
    render_training_tokens,
    render_turns,
    template_messages,
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
        texts.append("".join(prompt + reply for prompt, reply in turns))
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
