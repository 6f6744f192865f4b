"""Checks that a log was sampled with the chat template of the model that is trained on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.models.template_check import template_problem
from trainer.tokens import RenderingError
from trainer.tokens.chat_template import candidate_templates, generation_prompt
from trainer.tokens.prompt_end import without_thought_block

Columns = Mapping[str, Sequence[Any]]

_SAMPLE = 32
"""Number of episodes to compare, spread evenly over the log."""
_TAIL = 160
"""Characters at the end of a prompt among which the generation prompt must be."""


def log_template_problem(
    tokenizer: Any, columns: Columns, options_of: Callable[[int], Mapping[str, Any]]
) -> str | None:
    """Explains why a log cannot be trained on with a tokenizer's chat template; None if it can.

    Args:
        columns: `messages`, `tools`, `turns`, `mode` and `forced` of a file of groups.
        options_of: returns the template options of an episode by its index.
    """
    indices = range(0, len(columns["turns"]), max(1, len(columns["turns"]) // _SAMPLE))
    logged = {index: json.loads(columns["turns"][index]) for index in indices}
    text_only = [i for i, turns in logged.items() if not all(turn.get("token_ids") for turn in turns)]
    rendered = [*text_only, *(index for index in logged if columns["forced"][index])]
    if rendered:
        consult = any(columns["mode"][index] == "consult" for index in rendered)
        if problem := template_problem(tokenizer, consult=consult):
            return problem
    if not tokenizer.chat_template:
        return None  # token ids need no template
    with_ids = [index for index in logged if index not in text_only]
    differences = [
        _difference(
            tokenizer,
            json.loads(columns["messages"][index]),
            json.loads(columns["tools"][index]),
            options_of(index),
            logged[index],
        )
        for index in with_ids
    ]
    found = [difference for difference in differences if difference is not None]
    return found[0] if found and len(found) == len(differences) else None


def _difference(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    options: Mapping[str, Any],
    turns: list[dict[str, Any]],
) -> str | None:
    """Returns how the end of a logged prompt differs from that of the tokenizer's template.

    Returns None if it does not, or if the prompt does not contain the conversation.
    """
    ids = turns[0].get("prompt_token_ids") if turns else None
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < len(tokenizer) for id in ids):
        return None  # counted when the episode is tokenised
    prompt = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    asked = [message.get("content") for message in messages if message["role"] == "user"]
    if not any(isinstance(text, str) and text.strip() and text.strip() in prompt for text in asked):
        return None
    end = prompt[-_TAIL:]
    try:
        templates = list(candidate_templates(tokenizer, tools, options, thoughts=True))
    except RenderingError:
        return None
    expected = [generation_prompt(tokenizer, template) for template in templates]
    openings = [without_thought_block(text).strip() for text in expected]
    if any(opening in end for opening in openings):  # an empty one fits every prompt
        return None
    return (
        f"its chat template asks for a reply with {expected[0]!r}, but the prompts of the log end with "
        f"{end[-40:]!r}, so another template sampled them: pass the checkpoint that sampled, or save the "
        "server's template in its folder"
    )
