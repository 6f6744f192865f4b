"""Reads tool calls out of conversations, and prepares assistant messages for the next request."""

from __future__ import annotations

import json
from typing import Any

from agent.episode.schema import Episode, Message


def to_request_message(message: Message) -> Message:
    """Prepares an assistant message for the next request.

    Drops null fields and empty lists, which some servers reject, and replaces unpaired surrogates, which
    cannot be encoded. All other fields stay unchanged.
    """
    message = json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
    fields = {key: value for key, value in message.items() if value is not None and value != []}
    return {"content": message.get("content"), **fields, "role": "assistant"}


def unanswered_call_ids(messages: list[Message]) -> list[str]:
    """Returns the ids of calls that do not have exactly one tool message."""
    answers = [message.get("tool_call_id") for message in messages if message.get("role") == "tool"]
    return [id for id in call_ids(messages) if answers.count(id) != 1]


def call_ids(messages: list[Message]) -> list[str]:
    """Returns the ids of all tool calls in a conversation."""
    return [entry["id"] for entry in tool_calls(messages)]


def tool_calls(messages: list[Message]) -> list[dict[str, Any]]:
    """Returns all tool calls in a conversation, in order."""
    return [entry for message in messages for entry in message.get("tool_calls") or []]


def reply_positions(episode: Episode) -> list[int]:
    """Returns the index in `messages` of each turn's reply: one assistant message a turn, the last ones."""
    positions = [at for at, message in enumerate(episode.messages) if message.get("role") == "assistant"]
    # The agent itself writes the refusal for unavailable rules and an opening call; they belong to no turn.
    if positions and episode.stop_reason == "refused" and episode.error is not None:
        positions.pop()
    return positions[-len(episode.turns) :] if episode.turns else []
