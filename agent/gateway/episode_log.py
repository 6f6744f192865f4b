"""Converts a conversation through the gateway to an episode."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from agent.endpoint import parse_reply
from agent.episode import (
    Episode,
    ErrorRecord,
    Limits,
    Message,
    StopReason,
    digest_of,
    has_reply,
    text_digest,
)
from agent.gateway.exchange import Conversation, Exchange
from agent.gateway.exchange.history import message_text

# Request fields that control sampling. Other fields may identify people or hold private data.
_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "max_completion_tokens", "stop"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "logprobs", "top_logprobs"),
    "chat_template_kwargs",  # changes the prompt, so training must render with the same options
)
# Request fields that name earlier messages which the upstream stores.
_STORED_HISTORY = ("previous_response_id", "conversation", "prompt")
POLICY = "gateway"


def to_episode(exchange: Exchange, stop_reason: StopReason, refusal: Message | None) -> Episode:
    """Returns the conversation with its hidden turns; `refusal` is the gateway's own reply, if any."""
    body = exchange.request.body
    conversation = exchange.conversation
    given = [_loggable(message) for message in conversation.given_messages(with_hint=True)]
    messages = [*given, *(_loggable(message) for message in conversation.written_messages())]
    messages += [refusal] if refusal else []
    prompt = message_text(next((m for m in reversed(messages) if m.get("role") == "user"), {}))
    context = _context(conversation, given)
    prompt_digest = digest_of([prompt, context]) if context else text_digest(prompt)
    own = given
    if conversation.hint is not None:
        own = [_loggable(message) for message in conversation.given_messages()]
    system = "\n".join(message_text(m) for m in own if m.get("role") in ("system", "developer"))
    sampling = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if conversation.logit_bias is not None:
        sampling["logit_bias"] = conversation.logit_bias
    model = body.get("model") if isinstance(body.get("model"), str) else ""
    offer = exchange.loop.offer
    listed = body.get("tools")
    tools = [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
    tools += [offer.tool] if offer else []
    digest = offer.digest if offer else None
    group = [prompt_digest, model, POLICY, digest, sampling, tools, text_digest(system)]
    group += [conversation.hint.text] if conversation.hint is not None else []
    abandoned = ErrorRecord(boundary="agent", type="abandoned", message="the caller left before the end")
    return Episode(
        id=uuid.uuid4().hex,
        group_id=digest_of(group),
        prompt_id=prompt_digest[:16],
        prompt=prompt,
        model_requested=model or "",
        model_returned=exchange.turns.model,
        endpoint=exchange.settings.public_upstream,
        api=conversation.api,
        policy_version=POLICY,
        sampling_sent=sampling,
        rulebook_digest=digest,
        tool_schema_digest=digest_of(tools) if tools else None,
        prompt_digest=text_digest(system),
        hint=conversation.hint,
        source="gateway",
        limits=Limits(consultations=exchange.settings.max_consultations),
        messages=messages,
        given_messages=len(given) if has_reply(given) else None,
        tools=tools,
        turns=exchange.turns.turns,
        consultations=exchange.loop.consultations,
        mode="consult" if exchange.consulted else "direct",
        stop_reason=stop_reason,
        on_rules_error=exchange.settings.on_rules_error,
        error=abandoned if stop_reason == "error" and exchange.error is None else exchange.error,
        answered_without_rules=exchange.rules_error if stop_reason == "answer" else None,
        started_at=exchange.turns.started_at,
        seconds=time.monotonic() - exchange.turns.started,
    )


def _context(conversation: Conversation, given: list[Message]) -> list[Any]:
    """Returns the parts of a prompt other than the system text and the text of its last user message.

    These are the earlier conversation, in the request or stored by the upstream, and images and other parts
    that are not text. Empty for a conversation of one turn.
    """
    body = conversation.request.body
    stored = {name: body[name] for name in _STORED_HISTORY if body.get(name) is not None}
    earlier = [m for m in given if m.get("role") not in ("system", "developer")]
    entries = conversation.entries[: conversation.given]
    contents = [entry.get("content") for entry in entries if isinstance(entry, dict)]
    media = [
        part
        for content in contents
        if isinstance(content, list)
        for part in content
        if not (isinstance(part, dict) and isinstance(part.get("text"), str))
    ]
    return [part for part in (earlier if len(earlier) > 1 else [], media, stored) if part]


def _loggable(message: Message) -> Message:
    """Returns a message that the log can hold: applications send calls and texts of any type."""
    result = dict(message)
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        result["content"] = [part for part in content if isinstance(part, dict)]
    elif not isinstance(content, str | None):
        result["content"] = json.dumps(content)
    if calls is not None:
        entries = [_function_call(entry) for entry in calls] if isinstance(calls, list) else []
        read = parse_reply({"tool_calls": entries}, turn=0, offered=[], taken=[], text_mode=False)
        result["tool_calls"] = read.message["tool_calls"]
    return result


def _function_call(entry: Any) -> Any:
    """Converts a custom tool's call, whose input is text, to a function call."""
    custom = entry.get("custom") if isinstance(entry, dict) else None
    if not isinstance(custom, dict):
        return entry
    return {"id": entry.get("id"), "function": {"name": custom.get("name"), "arguments": custom.get("input")}}
