"""A conversation as text, turn by turn: what the model was asked, and what it replied.

A reply is what a chat template adds to the prompt that asked for it, up to its end token. This holds for any
template that writes a conversation as a model would have seen it grow, with or without `generation` marks.
Where a template rewrites what came before (Qwen3 drops earlier thoughts), TRL's training form of it is used.
"""

from __future__ import annotations

import json
from typing import Any


class RenderingError(ValueError):
    """A conversation that the template cannot show turn by turn; the text is a cause to count."""


def render_turns(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Prompt and reply of every assistant message, in order; each prompt begins with all that went before.

    Raises:
        RenderingError: neither the tokenizer's template nor TRL's training form of it can do this.
    """
    from trl.chat_template_utils import get_training_chat_template

    try:
        return _turns(tokenizer, tokenizer.chat_template, messages, tools)
    except RenderingError:
        if (training := get_training_chat_template(tokenizer)) is None:
            raise
        return _turns(tokenizer, training, messages, tools)


def render_prompt(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    """The text that asks for the next reply."""
    return _render(tokenizer, tokenizer.chat_template, _plain(messages, tokenizer.chat_template), tools, True)


def _turns(
    tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    shown = _plain(messages, template)
    turns: list[tuple[str, str]] = []
    before = ""
    for index, message in enumerate(shown):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, template, shown[:index], tools, True)
        whole = _render(tokenizer, template, shown[: index + 1], tools, False)
        if not (prompt.startswith(before) and whole.startswith(prompt)):
            raise RenderingError("its template rewrites what came before")
        turns.append((prompt, _to_its_end(whole[len(prompt) :], tokenizer)))
        before = prompt + turns[-1][1]
    return turns


def _render(
    tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], ask: bool
) -> str:
    import jinja2

    try:
        text: str = tokenizer.apply_chat_template(
            messages, tools=tools or None, chat_template=template, add_generation_prompt=ask, tokenize=False
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        raise RenderingError("its template cannot show this conversation") from None
    return text


def _plain(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Messages in the form that templates expect, thoughts under the names that they know."""
    as_text = "arguments is string" in template  # else the template turns them into JSON itself
    shown = []
    for message in messages:
        plain = {key: value for key, value in message.items() if value is not None}
        plain["content"] = message.get("content") or ""
        if thoughts := message.get("reasoning_content") or message.get("reasoning"):
            plain |= {"reasoning_content": thoughts, "thinking": thoughts}
        if calls := plain.pop("tool_calls", None):
            plain["tool_calls"] = calls if as_text else [_with_object(call) for call in calls]
        shown.append(plain)
    return shown


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _to_its_end(reply: str, tokenizer: Any) -> str:
    """The reply up to its end token: what the template puts after it (a line break) no model wrote."""
    end = max(
        (reply.rfind(mark) + len(mark) for mark in tokenizer.all_special_tokens if mark in reply), default=0
    )
    return reply[:end] if end and not reply[end:].strip() else reply
