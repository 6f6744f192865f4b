"""A log without what people and models wrote: what remains can be counted and timed, not read."""

from __future__ import annotations

from typing import Any

from agent.episode import Consultation, Episode, Message, Turn, text_digest

REMOVED = "[removed]"


def redacted(episode: Episode, salt: str) -> Episode:
    """The same episode with every text of the conversation replaced and its ids renamed.

    Ids of rules, modes, counts, times, settings and the rule tool stay. Texts, thoughts, arguments, token
    ids, log-probabilities, an application's own tools and fields that this version does not know go.

    Args:
        episode: is not changed.
        salt: not to be known to readers, who could otherwise find out whether a text that they guess is it.
            Ids that are equal stay equal under one salt.
    """
    tool = episode.tools[-1]["function"]["name"] if episode.rulebook_digest and episode.tools else None

    def renamed(id: str) -> str:
        return text_digest(f"redacted {salt} {id}")[:16]

    return Episode(
        **{
            **{name: getattr(episode, name) for name in Episode.model_fields},
            "prompt": REMOVED,
            "id": renamed(episode.id),
            "prompt_id": renamed(episode.prompt_id),
            "group_id": renamed(episode.group_id),
            "prompt_digest": renamed(episode.prompt_digest),
            "tools": episode.tools[-1:] if episode.rulebook_digest else [],
            "messages": [_message(message, tool) for message in episode.messages],
            "turns": [_turn(turn, renamed(turn.request_digest)) for turn in episode.turns],
            "consultations": [_consultation(each) for each in episode.consultations],
            "error": None if episode.error is None else episode.error.model_copy(update={"message": REMOVED}),
        }
    )


def _message(message: Message, tool: str | None) -> Message:
    kept: Message = {"role": message.get("role"), "content": REMOVED if message.get("content") else None}
    if "tool_call_id" in message:
        kept["tool_call_id"] = message["tool_call_id"]
    if message.get("tool_calls"):
        kept["tool_calls"] = [_call(entry, tool) for entry in message["tool_calls"]]
    return kept


def _call(entry: dict[str, Any], tool: str | None) -> dict[str, Any]:
    name = entry["function"]["name"]
    function = {"name": name if name == tool else REMOVED, "arguments": "{}"}
    return {"id": entry["id"], "type": "function", "function": function}


def _turn(turn: Turn, digest: str) -> Turn:
    known = {name: getattr(turn, name) for name in Turn.model_fields}
    gone = {"prompt_token_ids": None, "token_ids": None, "logprobs": None}
    return Turn(**{**known, **gone, "request_digest": digest})


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
