"""Exports episodes as OpenTelemetry spans in OTLP JSON, by the GenAI conventions (v0.1, in development).

An episode becomes a trace: an `invoke_agent` span with a `chat` span for each turn and an `execute_tool` span
for each consultation. Texts are included on request only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from agent.endpoint import parse_arguments, reasoning_text
from agent.episode import (
    Consultation,
    Episode,
    Message,
    Turn,
    episode_messages,
    reply_positions,
    text_digest,
)

AGENT = "ascl"
_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
_INTERNAL, _CLIENT = 1, 3
_OK, _ERROR = 1, 2
_PROVIDERS = {
    "api.openai.com": "openai",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.groq.com": "groq",
}
_FINISHES = {"tool_calls": "tool_call", "function_call": "tool_call"}
_REQUEST = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}


def to_otel_rows(episodes: Iterable[Episode], *, content: bool) -> Iterator[dict[str, Any]]:
    """Yields an OTLP trace request for each episode; `content` includes messages, arguments and results."""
    for episode in episodes:
        yield {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes({"service.name": AGENT})},
                    "scopeSpans": [
                        {
                            "scope": {"name": "agent.export.otel"},
                            "schemaUrl": _SCHEMA,
                            "spans": list(_spans(episode, content)),
                        }
                    ],
                }
            ]
        }


def _spans(episode: Episode, content: bool) -> Iterator[dict[str, Any]]:
    begin = _nanoseconds(episode.started_at)
    common = {
        "gen_ai.provider.name": _provider(episode.endpoint),
        "gen_ai.request.model": episode.model_requested,
        "gen_ai.conversation.id": _conversation_id(episode),
    }
    tokens = [turn.usage or {} for turn in episode.turns]
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": AGENT,
        "gen_ai.agent.version": episode.policy_version,
        **common,
        "gen_ai.usage.input_tokens": _sum(tokens, "prompt_tokens"),
        "gen_ai.usage.output_tokens": _sum(tokens, "completion_tokens"),
        **{name: episode.sampling_sent.get(key) for key, name in _REQUEST.items()},
        "ascl.mode": episode.mode,
        "ascl.stop_reason": episode.stop_reason,
        "ascl.rulebook.digest": episode.rulebook_digest,
        "ascl.prompt.id": episode.prompt_id,
        "ascl.group.id": episode.group_id,
    }
    if content:
        attributes["gen_ai.input.messages"] = _to_json([_message(m) for m in _prompt_messages(episode)])
        if episode.answer is not None:
            attributes["gen_ai.output.messages"] = _to_json([_output(episode.messages[-1], "stop")])
    error = episode.error.type if episode.error is not None and episode.stop_reason == "error" else None
    yield _span(
        episode,
        "",
        f"invoke_agent {AGENT}",
        _INTERNAL,
        begin,
        begin + _duration(episode.seconds),
        attributes,
        error,
    )
    replies = reply_positions(episode)
    for turn, at in zip(episode.turns, replies, strict=False):
        yield _chat(episode, turn, at, common, content)
        clock = _nanoseconds(turn.started_at) + _duration(turn.seconds)
        for number, consultation in enumerate(c for c in episode.consultations if c.turn == turn.index):
            ended = clock + _duration(consultation.seconds)
            yield _tool(episode, turn, number, consultation, clock, ended, content)
            clock = ended


def _chat(episode: Episode, turn: Turn, at: int, common: dict[str, Any], content: bool) -> dict[str, Any]:
    usage = turn.usage or {}
    finish = _FINISHES.get(turn.finish_reason or "", turn.finish_reason)
    attributes = {
        "gen_ai.operation.name": "chat",
        **common,
        **{name: episode.sampling_sent.get(key) for key, name in _REQUEST.items()},
        "gen_ai.response.model": episode.model_returned,
        "gen_ai.response.finish_reasons": [finish] if finish else None,
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
        "gen_ai.usage.cache_read.input_tokens": _detail(usage, "prompt_tokens_details", "cached_tokens"),
        "gen_ai.usage.reasoning.output_tokens": _detail(
            usage, "completion_tokens_details", "reasoning_tokens"
        ),
        "ascl.attempts": turn.attempts,
        **_server(episode.endpoint),
    }
    if content:
        attributes["gen_ai.input.messages"] = _to_json([_message(m) for m in episode.messages[:at]])
        attributes["gen_ai.output.messages"] = _to_json([_output(episode.messages[at], finish or "stop")])
        attributes["gen_ai.tool.definitions"] = _to_json(
            [{"type": "function", **tool.get("function", {})} for tool in episode.tools]
        )
    begin = _nanoseconds(turn.started_at)
    name = f"chat {episode.model_requested}"
    return _span(
        episode, f"turn {turn.index}", name, _CLIENT, begin, begin + _duration(turn.seconds), attributes, None
    )


def _tool(
    episode: Episode,
    turn: Turn,
    number: int,
    consultation: Consultation,
    begin: int,
    end: int,
    content: bool,
) -> dict[str, Any]:
    tool = next((t["function"]["name"] for t in episode.tools[-1:]), "consult_safety_rules")
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.type": "extension",
        "gen_ai.tool.call.id": consultation.call_id,
        "ascl.verdict": consultation.verdict,
        "ascl.rules": [rule.id for rule in consultation.rules] or None,
        "ascl.rulebook.digest": consultation.digest,
    }
    if content:
        # Both attributes must be objects, so malformed arguments are wrapped in one.
        parsed, problem = parse_arguments(consultation.arguments)
        attributes["gen_ai.tool.call.arguments"] = _to_json(
            {"malformed": consultation.arguments} if problem is not None else parsed
        )
        attributes["gen_ai.tool.call.result"] = _to_json({"text": consultation.text})
    error = "rules_error" if consultation.error is not None else None
    return _span(
        episode,
        f"tool {turn.index} {number}",
        f"execute_tool {tool}",
        _INTERNAL,
        begin,
        end,
        attributes,
        error,
    )


def _span(
    episode: Episode,
    place: str,
    name: str,
    kind: int,
    begin: int,
    end: int,
    attributes: dict[str, Any],
    error: str | None,
) -> dict[str, Any]:
    root = text_digest(f"{episode.id} span")[:16]
    span: dict[str, Any] = {
        "traceId": text_digest(episode.id)[:32],
        "spanId": text_digest(f"{episode.id} {place}")[:16] if place else root,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(end),
        "attributes": _attributes({**attributes, "error.type": error}),
        "status": {"code": _ERROR if error else _OK},
    }
    return {**span, "parentSpanId": root} if place else span


def _message(message: Message) -> dict[str, Any]:
    return {"role": str(message.get("role")), "parts": _parts(message)}


def _output(message: Message, finish: str) -> dict[str, Any]:
    return {**_message(message), "finish_reason": finish}


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    parts: list[dict[str, Any]] = []
    if reasoning := reasoning_text(message):
        parts.append({"type": "reasoning", "content": reasoning})
    if isinstance(content, str) and content:
        parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [
            {"type": "text", "content": p["text"]}
            for p in content
            if isinstance(p, dict) and isinstance(p.get("text"), str)
        ]
    for entry in message.get("tool_calls") or []:
        function = entry["function"]
        parsed, _ = parse_arguments(function["arguments"])
        arguments = function["arguments"] if parsed is None else parsed
        parts.append(
            {"type": "tool_call", "id": entry["id"], "name": function["name"], "arguments": arguments}
        )
    return parts


def _prompt_messages(episode: Episode) -> list[Message]:
    """Returns the system text and the prompt, without the earlier turns of a conversation."""
    given = episode.messages[: len(episode.messages) - len(episode_messages(episode))]
    by_role = {role: [m for m in given if m.get("role") == role] for role in ("system", "user")}
    return [*by_role["system"][:1], *by_role["user"][-1:]]


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _conversation_id(episode: Episode) -> str:
    """Returns the conversation id that all turns of a played conversation share, else the episode's id."""
    place = episode.conversation
    return episode.id if place is None else f"{place.id}#{episode.sample_index}"


def _provider(endpoint: str) -> str:
    host = urlsplit(endpoint).hostname or "unknown"
    return _PROVIDERS.get(host, host)


def _server(endpoint: str) -> dict[str, Any]:
    parts = urlsplit(endpoint)
    return {
        "server.address": parts.hostname,
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _sum(usages: list[dict[str, Any]], name: str) -> int | None:
    counts = [usage[name] for usage in usages if isinstance(usage.get(name), int)]
    return sum(counts) if counts else None


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    count = details.get(name) if isinstance(details, dict) else None
    return count if isinstance(count, int) else None


def _nanoseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000) * 1_000_000


def _duration(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": str(value)}
