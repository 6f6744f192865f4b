"""A log without what people and models wrote: what remains can be counted and timed, not read."""

from __future__ import annotations

from typing import Any

from agent.episode import Consultation, Episode, Message, Turn, text_digest

REMOVED = "[removed]"


def redacted(episode: Episode) -> Episode:
    """The same episode with every text of the conversation replaced and its ids renamed.

    Ids of rules, modes, counts, times, settings and the rule tool stay. Texts, thoughts, arguments, token
    ids, log-probabilities, an application's own tools and fields that this version does not know go.
    """
    return Episode(
        **{
            **{name: getattr(episode, name) for name in Episode.model_fields},
            "prompt": REMOVED,
            "id": _renamed(episode.id),
            "prompt_id": _renamed(episode.prompt_id),
            "group_id": _renamed(episode.group_id),
            "tools": episode.tools[-1:] if episode.rulebook_digest else [],
            "messages": [_message(message) for message in episode.messages],
            "turns": [_turn(turn) for turn in episode.turns],
            "consultations": [_consultation(each) for each in episode.consultations],
            "error": None if episode.error is None else episode.error.model_copy(update={"message": REMOVED}),
        }
    )


def _renamed(id: str) -> str:
    """Equal for equal ids; an id may itself say what was asked."""
    return text_digest(f"redacted {id}")[:16]


def _message(message: Message) -> Message:
    kept: Message = {"role": message.get("role"), "content": REMOVED if message.get("content") else None}
    if "tool_call_id" in message:
        kept["tool_call_id"] = message["tool_call_id"]
    if message.get("tool_calls"):
        kept["tool_calls"] = [_call(entry) for entry in message["tool_calls"]]
    return kept


def _call(entry: dict[str, Any]) -> dict[str, Any]:
    function = entry.get("function") or {}
    return {
        "id": entry.get("id"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": "{}"},
    }


def _turn(turn: Turn) -> Turn:
    known = {name: getattr(turn, name) for name in Turn.model_fields}
    return Turn(**{**known, "prompt_token_ids": None, "token_ids": None, "logprobs": None})


def _consultation(consultation: Consultation) -> Consultation:
    known = {name: getattr(consultation, name) for name in Consultation.model_fields}
    return Consultation(
        **{
            **known,
            "arguments": "{}",
            "situation": None if consultation.situation is None else REMOVED,
            "text": None if consultation.text is None else REMOVED,
            "error": None if consultation.error is None else REMOVED,
        }
    )
