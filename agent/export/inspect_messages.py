"""Converts messages, calls and reasoning to Inspect's types. Importing this module needs `inspect_ai`."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolCall, ToolCallError, ToolInfo, ToolParams

from agent.endpoint import parse_arguments, reasoning_field
from agent.episode import Consultation, Episode, Message, Turn, reply_positions, tool_calls

_CONVERTED_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "name"}
_STOPS: dict[str, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def chat_messages(episode: Episode) -> list[ChatMessage]:
    """Converts the whole conversation, in order; fields unknown to Inspect go to `metadata`."""
    replies = set(reply_positions(episode))
    consultations = {consultation.call_id: consultation for consultation in episode.consultations}
    names = _call_names(episode)
    return [
        _message(episode, at, message, at in replies, consultations, names)
        for at, message in enumerate(episode.messages)
    ]


def model_output(episode: Episode, turn: Turn, message: ChatMessage) -> ModelOutput:
    """Converts one turn's reply."""
    assert isinstance(message, ChatMessageAssistant)
    return ModelOutput(
        model=episode.model_returned or episode.model_requested,
        choices=[
            ChatCompletionChoice(message=message, stop_reason=_STOPS.get(turn.finish_reason or "", "unknown"))
        ],
        usage=model_usage([turn]),
        time=turn.seconds,
    )


def model_usage(turns: list[Turn]) -> ModelUsage | None:
    """Returns the token counts of several turns; None if the endpoint reported none."""
    counted = [turn.usage for turn in turns if turn.usage]
    if not counted:
        return None
    prompt = sum(_count(usage, "prompt_tokens") for usage in counted)
    completion = sum(_count(usage, "completion_tokens") for usage in counted)
    cached = sum(_count(usage, "prompt_tokens_details", "cached_tokens") for usage in counted)
    reasoning = sum(_count(usage, "completion_tokens_details", "reasoning_tokens") for usage in counted)
    return ModelUsage(
        input_tokens=prompt - cached,  # Inspect counts cached tokens separately
        output_tokens=completion,
        total_tokens=prompt + completion,
        input_tokens_cache_read=cached or None,
        reasoning_tokens=reasoning or None,
    )


def tool_infos(episode: Episode) -> list[ToolInfo]:
    """Converts the tools that were offered."""
    infos = []
    for tool in episode.tools:
        function = tool.get("function", {})
        schema = function.get("parameters") or {}
        infos.append(
            ToolInfo(
                name=str(function.get("name")),
                description=str(function.get("description", "")),
                parameters=ToolParams(
                    properties=schema.get("properties", {}), required=schema.get("required", [])
                ),
            )
        )
    return infos


def tool_error(consultation: Consultation | None) -> ToolCallError | None:
    """Returns the reason why a consultation returned no verdict; None if it returned one."""
    if consultation is None or consultation.error is None:
        return None
    fault = "parsing" if consultation.situation is None else "unknown"
    return ToolCallError(type=fault, message=consultation.error)


def _message(
    episode: Episode,
    at: int,
    message: Message,
    by_model: bool,
    consultations: dict[str, Consultation],
    names: dict[str, str],
) -> ChatMessage:
    more = {name: value for name, value in message.items() if name not in _CONVERTED_FIELDS}
    reasoning_key = reasoning_field(message)
    common: dict[str, Any] = {
        "id": f"{episode.id}-{at}",
        "content": _content(message, reasoning_key),
        # The content keeps the reasoning and the name of its field; the metadata keeps all other fields.
        "metadata": {name: value for name, value in more.items() if name != reasoning_key} or None,
    }
    role = message.get("role")
    if role == "assistant":
        return ChatMessageAssistant(
            **common,
            tool_calls=[_call(entry) for entry in message.get("tool_calls") or []] or None,
            model=(episode.model_returned or episode.model_requested) if by_model else None,
            source="generate" if by_model else None,
        )
    if role == "tool":
        id = str(message.get("tool_call_id"))
        return ChatMessageTool(
            **common, tool_call_id=id, function=names.get(id), error=tool_error(consultations.get(id))
        )
    if role in ("system", "developer"):
        return ChatMessageSystem(**common, source="input")
    return ChatMessageUser(**common, source="input")


def _content(message: Message, reasoning_key: str | None) -> str | list[Content]:
    content = message.get("content")
    parts: list[Content] = []
    if reasoning_key is not None:
        parts.append(ContentReasoning(reasoning=message[reasoning_key], internal={"field": reasoning_key}))
    if isinstance(content, list):
        parts += [_part(part) for part in content]
    elif not parts:
        return str(content or "")
    elif content:
        parts.append(ContentText(text=str(content)))
    return parts


def _part(part: Any) -> Content:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return ContentText(text=part["text"])
    image = part.get("image_url") if isinstance(part, dict) else None
    if isinstance(image, dict) and isinstance(image.get("url"), str):
        return ContentImage(image=image["url"])
    return ContentText(text=json.dumps(part, ensure_ascii=False))


def _call(entry: dict[str, Any]) -> ToolCall:
    function = entry["function"]
    parsed, problem = parse_arguments(function["arguments"])
    # Inspect stores arguments as an object only, so the error keeps the text that the model wrote.
    reason = f"{problem}: {function['arguments']}" if problem is not None else None
    return ToolCall(
        id=entry["id"], function=function["name"], arguments=parsed or {}, parse_error=reason, type="function"
    )


def _call_names(episode: Episode) -> dict[str, str]:
    return {entry["id"]: entry["function"]["name"] for entry in tool_calls(episode.messages)}


def _count(usage: dict[str, Any], *path: str) -> int:
    value: Any = usage
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) else 0
