"""Removes user and model text from an episode; counts, times and rule IDs remain."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from agent.episode import Consultation, ConversationTurn, Episode, Message, Turn, text_digest

REMOVED = "[removed]"
_ABSOLUTE_PATH = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|file:)")


def redact_episode(episode: Episode, salt: str) -> Episode:
    """Returns a copy of an episode with its texts removed and its ids replaced.

    Keeps rule ids, modes, counts, times, settings and the rule tool. Removes texts, reasoning, arguments,
    token ids, log-probabilities, an application's own tools and fields that this version does not know.
    Replaces the endpoint's host by a pseudonym, and an absolute path of a model by its last part.

    Args:
        episode: remains unchanged.
        salt: must be secret, because a reader who knows it can test whether a guessed text was the original.
            Under one salt, equal ids stay equal.
    """
    tool = episode.tools[-1]["function"]["name"] if episode.rulebook_digest and episode.tools else None

    def new_id(id: str) -> str:
        return text_digest(f"redacted {salt} {id}")[:16]

    return Episode(
        **{
            **{name: getattr(episode, name) for name in Episode.model_fields},
            "prompt": REMOVED,
            "endpoint": f"http://{new_id(urlsplit(episode.endpoint).netloc)}.invalid/v1",
            "model_requested": _without_folders(episode.model_requested),
            "model_returned": episode.model_returned and _without_folders(episode.model_returned),
            "id": new_id(episode.id),
            "prompt_id": new_id(episode.prompt_id),
            "group_id": new_id(episode.group_id),
            "prompt_digest": new_id(episode.prompt_digest),
            "conversation": _redact_place(episode.conversation, new_id),
            "tools": episode.tools[-1:] if episode.rulebook_digest else [],
            "messages": [_redact_message(message, tool) for message in episode.messages],
            "turns": [_redact_turn(turn, new_id(turn.request_digest)) for turn in episode.turns],
            "consultations": [_redact_consultation(each) for each in episode.consultations],
            "error": None if episode.error is None else episode.error.model_copy(update={"message": REMOVED}),
        }
    )


def _redact_place(place: ConversationTurn | None, new_id: Callable[[str], str]) -> ConversationTurn | None:
    if place is None:
        return None
    return ConversationTurn(id=new_id(place.id), turn=place.turn, turns=place.turns, history=place.history)


def _without_folders(model: str) -> str:
    """Returns the last part of an absolute path, which may name a person or a project; a name unchanged."""
    return PurePath(model.replace("\\", "/")).name if _ABSOLUTE_PATH.match(model) else model


def _redact_message(message: Message, tool: str | None) -> Message:
    redacted: Message = {
        "role": message.get("role"),
        "content": REMOVED if message.get("content") else None,
    }
    if "tool_call_id" in message:
        redacted["tool_call_id"] = message["tool_call_id"]
    if message.get("tool_calls"):
        redacted["tool_calls"] = [_redact_call(entry, tool) for entry in message["tool_calls"]]
    return redacted


def _redact_call(entry: dict[str, Any], tool: str | None) -> dict[str, Any]:
    name = entry["function"]["name"]
    function = {"name": name if name == tool else REMOVED, "arguments": "{}"}
    return {"id": entry["id"], "type": "function", "function": function}


def _redact_turn(turn: Turn, digest: str) -> Turn:
    fields = {name: getattr(turn, name) for name in Turn.model_fields}
    removed = {"prompt_token_ids": None, "token_ids": None, "logprobs": None}
    return Turn(**{**fields, **removed, "request_digest": digest})


def _redact_consultation(consultation: Consultation) -> Consultation:
    fields = {name: getattr(consultation, name) for name in Consultation.model_fields}
    return Consultation(
        **{
            **fields,
            "arguments": "{}",
            "situation": None if consultation.situation is None else REMOVED,
            "text": None if consultation.text is None else REMOVED,
            "error": None if consultation.error is None else REMOVED,
        }
    )
