"""Reads the final text of an episode for scoring; `agent.replies` reads the text itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from agent.endpoint import reasoning_text
from agent.episode import episode_messages, tool_calls, without_system
from agent.replies import ReplyParts, read_reply
from agent.tools import RULE_TOOL

if TYPE_CHECKING:
    from agent.episode import Episode

# Openings that identify a text that was cut off as reasoning. An answer addresses the user.
_OPENING_OF_REASONING = re.compile(
    r"\A\W*(?:(?:okay|ok|alright|hmm|so)\W+){0,3}"
    r"(?:the user\b|(?:first, )?i need to (?:figure|think|find|work)\b|let me (?:think|see|figure|recall)\b)",
    re.IGNORECASE,
)


def visible_answer(text: str) -> str:
    """Removes thoughts (closed or not), tool calls and tool results from a raw answer.

    Returns at most 200,000 characters; an empty text if no word, number or symbol is left, or if the rest
    only announces a call.
    """
    return read_reply(text, (RULE_TOOL,)).answer


def models_that_open_in_reasoning(episodes: Iterable[Episode]) -> frozenset[str]:
    """Returns the models whose chat template opens the thoughts in the prompt.

    Their replies close thoughts that they did not open (R1, QwQ, Qwen3-Thinking), so an unfinished reply
    that closes none was cut off inside them.
    """
    return frozenset(episode.model_requested for episode in episodes if closes_unopened_reasoning(episode))


def closes_unopened_reasoning(episode: Episode) -> bool:
    """Returns whether the final reply closes thoughts that it did not open."""
    text = final_text(episode)
    return text is not None and read_reply(text).opened_in_prompt


def final_reply(episode: Episode, thinking_models: Collection[str] = ()) -> ReplyParts:
    """Returns the parts of the final reply; empty ones if it is a parsed call or there is none.

    A reply that was cut off inside thoughts whose opening is in the prompt consists of thoughts only.

    Args:
        episode: the episode as logged.
        thinking_models: see `models_that_open_in_reasoning`.
    """
    text = final_text(episode) or ""
    reply = read_reply(text, _tool_names(episode))
    if not is_unfinished(episode) or reply.thoughts or reply.unfinished_thoughts:
        return reply
    if reasoning_text(episode.messages[-1]) if episode.messages else "":
        return reply  # the server separated the thoughts, so they are closed
    if episode.model_requested in thinking_models or _OPENING_OF_REASONING.match(text):
        return read_reply(text, _tool_names(episode), opened=True)
    return reply


def answer_of(episode: Episode, thinking_models: Collection[str] = ()) -> str:
    """Returns the visible answer of an episode; "" if it has none or was cut off inside its thoughts.

    The arguments are those of `final_reply`.
    """
    return final_reply(episode, thinking_models).answer


def is_unfinished(episode: Episode) -> bool:
    """Returns whether a limit ended the episode or cut off its last reply."""
    return episode.stop_reason == "limit" or bool(
        episode.turns and episode.turns[-1].finish_reason == "length"
    )


def final_text(episode: Episode) -> str | None:
    """Returns the model's last message, finished or not; None if it is a tool call or empty.

    If the message consists of parts, the text parts are returned.
    """
    last: dict[str, Any] = next(reversed(episode_messages(episode)), {})
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    content = last.get("content")
    if isinstance(content, list):
        content = "\n".join(text for part in content if (text := _text_of(part)))
    return content if isinstance(content, str) and content else None


def _text_of(part: Any) -> str:
    text = (
        part.get("text")
        if isinstance(part, dict) and part.get("type") in (None, "text", "output_text")
        else ""
    )
    return text if isinstance(text, str) else ""


def _tool_names(episode: Episode) -> frozenset[str]:
    names = ((tool.get("function") or {}).get("name") for tool in episode.tools)
    return frozenset({RULE_TOOL, *(name for name in names if isinstance(name, str))})


def earlier_texts(episode: Episode) -> list[tuple[str, str]]:
    """Returns role and text of the messages that an episode answers, without the results of the rule tool."""
    given = without_system(episode.messages)[: -len(episode_messages(episode)) or None]
    consultations = {call["id"] for call in tool_calls(given) if call["function"]["name"] == RULE_TOOL}
    return [
        (str(message.get("role")), text)
        for message in given
        if isinstance(text := message.get("content"), str)
        and text.strip()
        and message.get("tool_call_id") not in consultations
        and not text.startswith("<tool_response>")
    ]


def request_text(episode: Episode) -> str:
    """Returns the prompt of an episode, after the earlier turns of its conversation if there are any."""
    texts = earlier_texts(episode)
    if all(role == "user" for role, _ in texts):
        return episode.prompt
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in texts)
