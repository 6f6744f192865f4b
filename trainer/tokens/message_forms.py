"""Equivalent forms of a logged reply, for chat templates that cannot render it as logged."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

from agent.episode import Message
from trainer.tokens.chat_template import parse_json, thoughts_of

_THOUGHTS = re.compile(
    r"\s*(?:<(?:think|thinking|thought|thoughts|reasoning)>)?(?P<thoughts>.*?)"
    r"</(?:think|thinking|thought|thoughts|reasoning)>(?P<rest>.*)",
    re.DOTALL,
)


def separate_thoughts(message: Message) -> Message:
    """Moves thoughts from the content to `reasoning_content`.

    A server without a reasoning parser leaves them there, without the opening tag if the prompt ends with it.
    Returns the message itself if its content has no closing tag, or if it has thoughts already.
    """
    content = message.get("content")
    if not isinstance(content, str) or thoughts_of(message):
        return message
    if (found := _THOUGHTS.match(content)) is None or not found["thoughts"].strip():
        return message
    return {**message, "reasoning_content": found["thoughts"].strip(), "content": found["rest"].strip()}


def as_thoughts(message: Message) -> Message:
    """Converts the content of a truncated reply to thoughts whose opening tag is in the prompt.

    A server without a reasoning parser leaves thoughts in the content. Returns the message itself if it has
    thoughts or calls already.
    """
    content = message.get("content")
    if not isinstance(content, str) or thoughts_of(message) or message.get("tool_calls"):
        return message
    return {**message, "reasoning_content": content, "content": ""}


CALL_IDS = ("call{number:05}", "functions.{name}:{number}")
"""Ids that templates require: nine letters and digits (Mistral), or the name of the tool (Kimi K2)."""


def with_call_ids(messages: list[Message], form: str) -> list[Message]:
    """Returns messages whose calls, and the results of these, have ids of this form."""
    ids: dict[Any, str] = {}
    result = []
    for message in messages:
        if calls := message.get("tool_calls"):
            for call in calls:
                name = (call.get("function") or {}).get("name")
                ids[call.get("id")] = form.format(number=len(ids), name=name)
            message = {**message, "tool_calls": [{**call, "id": ids[call.get("id")]} for call in calls]}
        elif message.get("tool_call_id") in ids:
            message = {**message, "tool_call_id": ids[message["tool_call_id"]]}
        result.append(message)
    return result


def complete_arguments(message: Message) -> Message:
    """Returns an assistant message whose calls have complete arguments: the values that were written.

    A key without a value is removed. Arguments that are not the beginning of a JSON object stay unchanged.
    """
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_complete_call(call) for call in calls]} if calls else message


def _complete_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    text = function.get("arguments")
    if not isinstance(text, str) or isinstance(parse_json(text or "{}"), dict):
        return call
    try:
        arguments = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}}
