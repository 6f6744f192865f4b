"""Renders a conversation as text, turn by turn: the prompt of each reply, and the reply.

A reply is the text that the chat template adds to the prompt that asked for it, up to its end token. This
works for any template that renders a conversation as the model saw it grow, with or without `generation`
marks. For templates that rewrite earlier turns (Qwen3 drops earlier thoughts), TRL's training template is
used.
"""

from __future__ import annotations

import json
from typing import Any


class RenderingError(ValueError):
    """The template cannot render a conversation turn by turn; the message is a cause to count."""


def render_turns(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Returns prompt and reply of every assistant message; each prompt begins with all text before it.

    Raises:
        RenderingError: neither the tokenizer's template nor TRL's training template can do this.
    """
    from trl.chat_template_utils import get_training_chat_template

    try:
        return _render_turns(tokenizer, tokenizer.chat_template, messages, tools)
    except RenderingError:
        if (training_template := get_training_chat_template(tokenizer)) is None:
            raise
        return _render_turns(tokenizer, training_template, messages, tools)


def render_prompt(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    """Returns the text that asks the model for the next reply."""
    template = tokenizer.chat_template
    return _render(tokenizer, template, template_messages(messages, template), tools, True)


def _render_turns(
    tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    prepared = template_messages(messages, template)
    turns: list[tuple[str, str]] = []
    before = ""
    for index, message in enumerate(prepared):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, template, prepared[:index], tools, True)
        whole = _render(tokenizer, template, prepared[: index + 1], tools, False)
        if not (prompt.startswith(before) and whole.startswith(prompt)):
            raise RenderingError("its template rewrites earlier turns")
        turns.append((prompt, _trim_after_end_token(whole[len(prompt) :], tokenizer)))
        before = prompt + turns[-1][1]
    return turns


def _render(
    tokenizer: Any,
    template: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    add_generation_prompt: bool,
) -> str:
    import jinja2

    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        raise RenderingError("its template cannot render this conversation") from None
    return text


def template_messages(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Converts logged messages to the form that chat templates expect.

    Arguments of calls become objects, unless the template expects JSON text; thoughts appear under both names
    that templates read; null fields are removed.
    """
    keep_json = "arguments is string" in template  # otherwise the template serialises objects itself
    converted = []
    for message in messages:
        plain = {key: value for key, value in message.items() if value is not None}
        plain["content"] = message.get("content") or ""
        if thoughts := message.get("reasoning_content") or message.get("reasoning"):
            plain |= {"reasoning_content": thoughts, "thinking": thoughts}
        if calls := plain.pop("tool_calls", None):
            plain["tool_calls"] = calls if keep_json else [_parse_arguments(call) for call in calls]
        converted.append(plain)
    return converted


def _parse_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _trim_after_end_token(reply: str, tokenizer: Any) -> str:
    """Removes the text after the end token, such as a line break: the template wrote it, not the model."""
    end = max(
        (reply.rfind(token) + len(token) for token in tokenizer.all_special_tokens if token in reply),
        default=0,
    )
    return reply[:end] if end and not reply[end:].strip() else reply
