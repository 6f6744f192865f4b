"""Extracts the text of an answer that a user sees."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from agent.episode import episode_messages
from agent.tools import RULE_TOOL

if TYPE_CHECKING:
    from agent.episode import Episode

MAX_CHARS = 200_000
_REASONING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_UNOPENED_REASONING = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TOOL_RESPONSES = re.compile(r"<tool_response>.*?(?:</tool_response>|\Z)", re.DOTALL)
# Calls that no server parsed, in the formats of the models' chat templates. Without an end tag, a call
# extends to the end of the text.
_TAGGED_CALLS = re.compile(
    r"<(tool_call|function_calls?|functioncall|tool_use|invoke|TOOLCALL|start_function_call)\b[^>]{0,200}>"
    r".*?(?:</\1>|\Z)"  # Hermes, Qwen, GLM, MiniMax, Nemotron
    r"|<\|tool_call\|>.*?(?:<\|/tool_call\|>|\Z)"  # Phi
    r"|<function=[^>]{0,200}>.*?(?:</function>|\Z)"  # Llama's custom format, Qwen Coder
    r"|```tool_(?:code|call)\b.*?(?:```|\Z)",  # Gemma
    re.DOTALL,
)
_OPEN_CALLS = re.compile(
    r"(?:<\|python_tag\|>|\[TOOL_CALLS\]"  # Llama, Mistral
    r"|functools\[|<\|tool_calls?(?:_section)?_begin\|>"  # Phi, Kimi
    r"|<｜tool▁calls?▁begin｜>|<\|channel\|>commentary to=functions\."  # DeepSeek, gpt-oss
    rf"|^[ \t]*(?:{RULE_TOOL}\(|Action:[ \t]*{RULE_TOOL}\b)"
    rf'|\{{\s*"(?:name|function|tool)"\s*:\s*"{RULE_TOOL}"'
    r'|\A[\s`\[]*(?:json\s*)?\{\s*"(?:name|function|tool)"\s*:\s*"[^"]*"\s*,\s*"(?:arguments|parameters)"\s*:'
    r").*",
    re.DOTALL | re.MULTILINE,
)
# Openings that identify a text that was cut off as reasoning. An answer addresses the user.
_OPENING_OF_REASONING = re.compile(
    r"\A\W*(?:(?:okay|ok|alright|hmm|so)\W+){0,3}"
    r"(?:the user\b|(?:first, )?i need to (?:figure|think|find|work)\b|let me (?:think|see|figure|recall)\b)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_NAME_KEYS, _ARGUMENT_KEYS = {"name", "function", "tool"}, {"arguments", "parameters"}


def visible_answer(text: str) -> str:
    """Removes reasoning (closed or not), tool calls and tool results from a raw answer.

    Returns at most `MAX_CHARS`; an empty text if no word, number or symbol is left.
    """
    text = _without_calls(_without_reasoning(text))
    # Cut last: the reasoning before an answer may be longer than any answer.
    text = text.strip()[:MAX_CHARS]
    return text if any(_is_content(character) for character in text) else ""


def has_call(text: str) -> bool:
    """Returns whether a raw answer contains a tool call, in any known format, outside its reasoning."""
    text = _TOOL_RESPONSES.sub(" ", _without_reasoning(text))
    return _without_calls(text).split() != text.split()


def models_that_open_in_reasoning(episodes: Iterable[Episode]) -> frozenset[str]:
    """Returns the models whose chat template opens the reasoning in the prompt.

    Their replies contain `</think>` without `<think>` (R1, QwQ, Qwen3-Thinking), so an unfinished reply
    without `</think>` was cut off inside the reasoning.
    """
    return frozenset(
        episode.model_requested for episode in episodes if _closes_unopened(final_text(episode) or "")
    )


def answer_of(episode: Episode, thinking_models: Collection[str] = ()) -> str:
    """Returns the visible answer of an episode; "" if it has none or was cut off inside its reasoning.

    Args:
        episode: as logged.
        thinking_models: see `models_that_open_in_reasoning`.
    """
    text = final_text(episode) or ""
    may_be_reasoning = episode.model_requested in thinking_models or _OPENING_OF_REASONING.match(text)
    if may_be_reasoning and is_unfinished(episode) and "think>" not in text:
        return ""
    return visible_answer(text)


def is_unfinished(episode: Episode) -> bool:
    """Returns whether a limit ended the episode or cut off its last reply."""
    return episode.stop_reason == "limit" or bool(
        episode.turns and episode.turns[-1].finish_reason == "length"
    )


def has_stray_reasoning(text: str) -> bool:
    """Returns whether there is reasoning outside one closed block at the start.

    The prompt may contain the opening tag of that block.
    """
    if "</think>" in text and (text.lstrip().startswith("<think>") or _closes_unopened(text)):
        text = text.partition("</think>")[2]
    return "<think>" in text or "</think>" in text


def _closes_unopened(text: str) -> bool:
    before, tag, _ = text.partition("</think>")
    return bool(tag) and "<think>" not in before


def final_text(episode: Episode) -> str | None:
    """Returns the model's last message, finished or not; None if it is a tool call or empty."""
    last: dict[str, Any] = next(reversed(episode_messages(episode)), {})
    content = last.get("content")
    if last.get("role") != "assistant" or last.get("tool_calls") or not isinstance(content, str):
        return None
    return content or None


def _without_reasoning(text: str) -> str:
    return _UNOPENED_REASONING.sub(" ", _REASONING.sub(" ", text))


def _without_calls(text: str) -> str:
    text = _OPEN_CALLS.sub(" ", _TAGGED_CALLS.sub(" ", _TOOL_RESPONSES.sub(" ", text)))
    return "" if _is_json_call(text.strip()) else text


def _is_json_call(text: str) -> bool:
    """Returns whether a text consists of one JSON call, or a list of them, and nothing else."""
    fenced = _FENCED.match(text)
    text = fenced[1].strip() if fenced else text
    if not text.startswith(("{", "[")):
        return False
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    entries = value if isinstance(value, list) else [value]
    return bool(entries) and all(
        isinstance(entry, dict) and entry.keys() & _NAME_KEYS and entry.keys() & _ARGUMENT_KEYS
        for entry in entries
    )


def _is_content(character: str) -> bool:
    """Returns whether a character is a letter, a digit or a symbol such as an emoji, but not Markdown."""
    category = unicodedata.category(character)
    return category[0] in "LN" or (category[0] == "S" and not character.isascii())
