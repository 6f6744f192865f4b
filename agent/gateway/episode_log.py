"""A conversation through the gateway as an episode."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from agent.endpoint import parse_reply
from agent.episode import Episode, ErrorRecord, Limits, Message, StopReason, digest_of, text_digest
from agent.gateway.exchange import Exchange

# Fields of a request that say how to sample; others may name people or hold what is not ours to keep.
_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "max_completion_tokens", "stop"),
    *("presence_penalty", "frequency_penalty", "reasoning_effort", "logprobs", "top_logprobs"),
)
POLICY = "gateway"


def episode_of(exchange: Exchange, reply: Message | None, stop_reason: StopReason) -> Episode:
    """The conversation with its hidden turns; `reply` is what the caller was shown, None for nothing."""
    body = exchange.asked.body
    messages = [_recorded(message) for message in exchange.logged()]
    prompt = _text(next((m for m in reversed(messages) if m.get("role") == "user"), {}))
    system = "\n".join(_text(m) for m in messages if m.get("role") in ("system", "developer"))
    sampling = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    model = body.get("model") if isinstance(body.get("model"), str) else ""
    offer = exchange.offer
    given = body.get("tools")
    tools = [tool for tool in given if isinstance(tool, dict)] if isinstance(given, list) else []
    tools += [offer.tool] if offer else []
    digest = offer.digest if offer else None
    failed = stop_reason == "error" and exchange.error is None
    unknown = ErrorRecord(boundary="agent", type="abandoned", message="the caller left before the end")
    return Episode(
        id=uuid.uuid4().hex,
        group_id=digest_of(
            [text_digest(prompt), model, POLICY, digest, sampling, tools, text_digest(system)]
        ),
        prompt_id=text_digest(prompt)[:16],
        prompt=prompt,
        model_requested=model or "",
        model_returned=exchange.model,
        endpoint=exchange.settings.public_upstream,
        api=exchange.api,
        policy_version=POLICY,
        sampling_sent=sampling,
        rulebook_digest=digest,
        tool_schema_digest=digest_of(tools) if tools else None,
        prompt_digest=text_digest(system),
        source="gateway",
        limits=Limits(consultations=exchange.settings.most_consultations),
        messages=[*messages, *([_recorded(reply)] if reply and not exchange.half_turn else [])],
        tools=tools,
        turns=exchange.turns,
        consultations=exchange.desk.consultations,
        mode="consult" if exchange.consulted else "direct",
        stop_reason=stop_reason,
        on_rules_error=exchange.settings.on_rules_error,
        error=unknown if failed else exchange.error,
        started_at=exchange.started_at,
        seconds=time.monotonic() - exchange.began,
    )


def _recorded(message: Message) -> Message:
    """A message as a log may hold it: what an application sends for a call or a text can be anything."""
    kept = dict(message)
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        kept["content"] = [part for part in content if isinstance(part, dict)]
    elif not isinstance(content, str | None):
        kept["content"] = json.dumps(content)
    if calls is not None:
        entries = [_function_call(entry) for entry in calls] if isinstance(calls, list) else []
        read = parse_reply({"tool_calls": entries}, turn=0, offered=[], taken=[], text_mode=False)
        kept["tool_calls"] = read.message["tool_calls"]
    return kept


def _function_call(entry: Any) -> Any:
    """A custom tool's call, whose input is text, in the form of a function's."""
    custom = entry.get("custom") if isinstance(entry, dict) else None
    if not isinstance(custom, dict):
        return entry
    return {"id": entry.get("id"), "function": {"name": custom.get("name"), "arguments": custom.get("input")}}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
