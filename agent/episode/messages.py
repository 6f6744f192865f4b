"""Reads tool calls out of conversations, and prepares assistant messages for the next request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.episode.schema import Episode, Message

_CALL_TEXT = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESULT_TEXT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


@dataclass(frozen=True)
class EarlierCall:
    """Tool call of an earlier turn of a conversation."""

    user_turn: int
    """Number of the user message before the call, from 1."""
    name: str
    arguments: str
    result: str | None
    """Text that the model read; None if the conversation contains none."""


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


def count_given_messages(
    messages: Sequence[Mapping[str, Any]], recorded: int | None = None, turns: int = 0
) -> int:
    """Returns the number of messages that precede an episode: the system text, the history and the prompt.

    Replies among them belong to earlier turns of the conversation, not to the episode.

    Args:
        messages: the whole conversation in OpenAI form.
        recorded: `given_messages` of the episode, if it has one.
        turns: number of the model's replies in an episode of the gateway; 0 if unknown. An application may
            call its own tools between the prompt and the request of the episode.
    """
    if recorded is not None:
        return min(recorded, len(messages))
    start = next((at + 1 for at in range(len(messages) - 1, -1, -1) if _is_prompt(messages, at)), 0)
    replies = [
        at
        for at, message in enumerate(messages)
        if at >= start and message.get("role") == "assistant" and _says_something(message)
    ]
    if not turns or len(replies) <= turns:
        return start
    start = replies[-turns]
    while messages[start - 1].get("role") == "assistant" and not _says_something(messages[start - 1]):
        start -= 1  # a log of version 1 may hold the reasoning of a reply as a message of its own
    return start


def episode_messages(episode: Episode) -> list[Message]:
    """Returns the messages that were written in an episode: its replies, and the results of their calls."""
    turns = len(episode.turns) if episode.source == "gateway" else 0
    return episode.messages[count_given_messages(episode.messages, episode.given_messages, turns) :]


def without_system(messages: list[Message]) -> list[Message]:
    """Returns a conversation without the system text at its beginning."""
    return messages[1:] if messages and messages[0].get("role") == "system" else messages


def user_turn(episode: Episode) -> int:
    """Returns the number of the user message that an episode answers, from 1, within its conversation."""
    if episode.conversation is not None:
        return episode.conversation.turn
    given = episode.messages[: len(episode.messages) - len(episode_messages(episode))]
    return max(1, sum(_is_prompt(given, at) for at in range(len(given))))


def earlier_calls(episode: Episode, name: str) -> list[EarlierCall]:
    """Returns the calls of a tool in earlier turns, whose results the model had read before this episode."""
    given = episode.messages[: len(episode.messages) - len(episode_messages(episode))]
    results = {
        message.get("tool_call_id"): _text(message) for message in given if message.get("role") == "tool"
    }
    found, turn = list[EarlierCall](), 0
    for at, message in enumerate(given):
        if _is_prompt(given, at):
            turn += 1
        for entry in message.get("tool_calls") or []:
            function = entry["function"]
            found.append(EarlierCall(turn, function["name"], function["arguments"], results.get(entry["id"])))
        if message.get("role") == "assistant" and at + 1 < len(given) and not _is_prompt(given, at + 1):
            found += _calls_in_text(turn, _text(message), _text(given[at + 1]))
    return [call for call in found if call.name == name]


def _calls_in_text(turn: int, reply: str, answer: str) -> list[EarlierCall]:
    """Reads calls that a reply contains as text, and their results in the user message after it."""
    results = _RESULT_TEXT.findall(answer)
    calls = []
    for number, text in enumerate(_CALL_TEXT.findall(reply)):
        try:
            call = json.loads(text)
            name, arguments = call["name"], call.get("arguments")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            continue
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append(EarlierCall(turn, name, written, results[number] if number < len(results) else None))
    return calls


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def has_reply(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether any message is a reply of the model, so that an episode after it has a history."""
    return any(message.get("role") in ("assistant", "tool") for message in messages)


def _is_prompt(messages: Sequence[Mapping[str, Any]], at: int) -> bool:
    """Returns whether a message is the user's, and not the result of a call in text mode."""
    if messages[at].get("role") != "user":
        return False
    before, content = messages[at - 1].get("content") if at else None, messages[at].get("content")
    texts = isinstance(before, str) and isinstance(content, str)
    return not (texts and "<tool_call>" in str(before) and str(content).startswith("<tool_response>"))


def _says_something(message: Mapping[str, Any]) -> bool:
    return bool(message.get("content") or message.get("tool_calls"))


def reply_positions(episode: Episode) -> list[int]:
    """Returns the index in `messages` of each turn's reply, which are the last assistant messages."""
    first = len(episode.messages) - len(episode_messages(episode))
    positions = [
        at
        for at, message in enumerate(episode.messages)
        if at >= first and message.get("role") == "assistant"
    ]
    # The agent itself writes the refusal for unavailable rules and an opening call; they belong to no turn.
    if positions and episode.stop_reason == "refused" and episode.error is not None:
        positions.pop()
    return positions[-len(episode.turns) :] if episode.turns else []
