"""Extracts the text of an answer that a user sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.episode import Episode

MAX_CHARS = 200_000
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHTS_UNOPENED = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TOOL_TURNS = re.compile(r"<(tool_call|tool_response)>.*?(?:</\1>|\Z)", re.DOTALL)


def visible_answer(text: str) -> str:
    """Removes thoughts (closed or not) and tool turns from a raw answer; keeps at most `MAX_CHARS`."""
    text = _THOUGHTS.sub(" ", text)
    text = _THOUGHTS_UNOPENED.sub(" ", text)
    # Cut last: the thoughts before an answer may be longer than any answer.
    return _TOOL_TURNS.sub(" ", text).strip()[:MAX_CHARS]


def final_text(episode: Episode) -> str | None:
    """Returns the model's last message, finished or not; None if it is a tool call or empty."""
    last = episode.messages[-1] if episode.messages else {}
    content = last.get("content")
    if last.get("role") != "assistant" or last.get("tool_calls") or not isinstance(content, str):
        return None
    return content or None
