"""An assistant message as it goes back to an endpoint: as it came, less what says nothing."""

from __future__ import annotations

import json
from typing import Any

from agent.episode.schema import Episode, Message


def to_request_message(message: Message) -> Message:
    """What can be sent back: as text without halves of surrogate pairs, and without fields that say nothing
    (null, empty list), which some servers refuse."""
    message = json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
    kept = {key: value for key, value in message.items() if value is not None and value != []}
    return {"content": message.get("content"), **kept, "role": "assistant"}


def unanswered_call_ids(messages: list[Message]) -> list[str]:
    """Ids of calls that not exactly one tool message answers."""
    answers = [message.get("tool_call_id") for message in messages if message.get("role") == "tool"]
    return [id for id in call_ids(messages) if answers.count(id) != 1]


def call_ids(messages: list[Message]) -> list[str]:
    """Ids of all calls in a conversation."""
    return [entry["id"] for entry in tool_calls(messages)]


def tool_calls(messages: list[Message]) -> list[dict[str, Any]]:
    return [entry for message in messages for entry in message.get("tool_calls") or []]


def reply_positions(episode: Episode) -> list[int]:
    """Where in `messages` the reply of each turn stands: the last assistant messages, one for each turn."""
    places = [at for at, message in enumerate(episode.messages) if message.get("role") == "assistant"]
    # A refusal for want of rules, or an opened first call, is the agent's and belongs to no turn.
    if places and episode.stop_reason == "refused" and episode.error is not None:
        places.pop()
    return places[-len(episode.turns) :] if episode.turns else []
