"""Held-out prompts of the safety floor, sent with the system prompt and the tools of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.episode import count_given_messages, digest_of, has_reply, text_digest
from evaluation.prompts import PromptError, load_prompts
from trainer.errors import TrainingError
from trainer.groups.parquet import template_options_of
from trainer.stages.logged.dataset.groups import PROMPT_COLUMNS, LoggedGroups
from trainer.stages.logged.guards import HeldOutPrompts
from trainer.stages.monitoring import held_out_problem
from trainer.tokens import RenderingError, call_opening

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments

_SYSTEM_ROLES = ("system", "developer")


def load_held_out_prompts(
    arguments: LoggedArguments, tokenizer: Any, groups: LoggedGroups
) -> HeldOutPrompts | None:
    """Loads the prompts of `floor_prompts` that the log does not contain; returns None if it is not set.

    The system prompt, the tools and the template's options are those of the log's first episode.

    Raises:
        TrainingError: the prompts cannot be read or rendered, or no harmful one is left.
    """
    if arguments.floor_prompts is None:
        return None
    try:
        prompts = load_prompts(arguments.floor_prompts)
    except PromptError as error:
        raise TrainingError(f"floor_prompts: {error}") from None
    first: Mapping[str, Any] = {}
    trained, asked = set[str](), {prompt.conversation_key for prompt in prompts}
    for texts in groups.texts(PROMPT_COLUMNS):
        first = first or texts
        trained |= asked & _conversation_keys(json.loads(texts["messages"]), texts["given_messages"])
    system = [message for message in json.loads(first["messages"])[:1] if message["role"] in _SYSTEM_ROLES]
    tools, options = json.loads(first["tools"]), template_options_of(first)
    held_out = [prompt for prompt in prompts if prompt.conversation_key not in trained]
    harmful = sum(prompt.kind == "harmful" for prompt in held_out)
    if problem := held_out_problem(arguments.floor_prompts, harmful):
        raise TrainingError(problem)
    try:
        openings = [
            call_opening(
                tokenizer,
                [*system, *prompt.history, {"role": "user", "content": prompt.prompt}],
                tools,
                options,
            )
            for prompt in held_out
        ]
    except RenderingError as cause:
        raise TrainingError(f"the probability of consulting cannot be measured: {cause}") from None
    return HeldOutPrompts(
        kinds=[prompt.kind for prompt in held_out],
        openings=openings,
        every=arguments.floor_every,
        reply_tokens=arguments.floor_reply_tokens,
    )


def _conversation_keys(messages: list[dict[str, Any]], given: int | None) -> set[str]:
    """Returns the keys of the prompts (`Prompt.conversation_key`) that an episode contains: the texts of its
    user messages, and the conversation before its replies."""
    keys = {text_digest(str(message["content"])) for message in messages if message["role"] == "user"}
    before = messages[: count_given_messages(messages, given)]
    if has_reply(before):
        earlier = [message for message in before[:-1] if message["role"] not in _SYSTEM_ROLES]
        keys.add(digest_of([earlier, str(before[-1]["content"])]))
    return keys
