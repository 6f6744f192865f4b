"""Calls that are written as JSON or as a Python dictionary, bare, in a list or in a code fence."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

_NAME_KEYS = r"(?:name|function|function_name|tool|tool_name|recipient_name|action)"
_ARGUMENT_KEYS = r"(?:arguments|parameters|args|tool_input|tool_args|action_input)"
_NAMES = frozenset({"name", "function", "function_name", "tool", "tool_name", "recipient_name", "action"})
_ARGUMENTS = frozenset({"arguments", "parameters", "args", "tool_input", "tool_args", "action_input"})
_WRAPPERS = frozenset({"tool_calls", "tool_call", "function_call", "function_calls", "tool_uses"})
# A call that may be cut off: its keys in the usual order, up to the arguments.
_BEGINNING = re.compile(
    r"\s{0,9}[`*]{0,4}(?:(?:tool|function)[ _]?calls?\**:\**)?"
    r"[\s`\[(]{0,9}(?:(?:json|python|tool_code)\b)?[\s\[]{0,9}\{\s*"
    r"(?:[\"'](?:type|id)[\"']\s*:\s*[\"'][^\"'\n]{0,80}[\"']\s*,\s*){0,2}"
    rf"(?:[\"']{_NAME_KEYS}[\"']\s*:\s*(?:\{{\s*[\"']name[\"']\s*:\s*)?[\"'][^\"'\n]{{1,200}}[\"']\s*,\s*"
    rf"[\"'](?:{_ARGUMENT_KEYS}[\"']\s*:|(?:arg|para)\w*[\"']?\s*\Z)"
    r"|[\"'](?:tool_calls?|function_calls?|tool_uses)[\"']\s*:\s*[\[{])",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[\s;,\]`)]*")
_LOOK_BACK = 300  # characters before a name in which its call begins
MAX_CALLS = 64  # examined in one text


def call_beginning(text: str, position: int = 0) -> int | None:
    """Returns the end of a JSON call at a position, cut off or not; None if there is none.

    Consecutive calls count as one.
    """
    end = None
    for _ in range(MAX_CALLS):
        begun = _BEGINNING.match(text, position)
        if begun is None:
            break
        end = closing_brace(text, text.index("{", begun.start()))
        separator = _SEPARATOR.match(text, end)
        position = separator.end() if separator else end
        end = position
    return end


def is_json_call(text: str, tools: Collection[str]) -> bool:
    """Returns whether a text consists of one or more JSON calls and nothing else."""
    if not text.startswith(("{", "[")):
        return False
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    entries = value if isinstance(value, list) else [value]
    return bool(entries) and all(_is_call(entry, tools) for entry in entries)


def _is_call(value: Any, tools: Collection[str]) -> bool:
    if not isinstance(value, dict):
        return False
    if len(value) == 1 and next(iter(value)) in tools:
        return True
    if value.keys() & _WRAPPERS and len(value) <= 3:
        return True
    inner = value.get("function")
    if isinstance(inner, dict) and "name" in inner and inner.keys() & _ARGUMENTS:
        return True
    names = [value[key] for key in value.keys() & _NAMES if isinstance(value[key], str)]
    if any(name in tools for name in names):
        return True
    return bool(names) and bool(value.keys() & _ARGUMENTS)


def named_call_starts(text: str, tools: Collection[str]) -> Iterator[int]:
    """Yields where JSON calls of these tools begin, anywhere in a text."""
    if not tools:
        return
    names = "|".join(re.escape(name) for name in sorted(tools))
    pattern = re.compile(
        rf"[\"'](?:{_NAME_KEYS}[\"']\s*:\s*[\"'](?:functions?\.)?(?:{names})[\"']|(?:{names})[\"']\s*:\s*\{{)"
    )
    for match in pattern.finditer(text):
        start = _call_start(text, match.start())
        if start is not None:
            yield start


def _call_start(text: str, position: int) -> int | None:
    """Returns the opening brace of the outermost object that contains a position, within a short distance."""
    depth, start = 0, None
    for index in range(position - 1, max(-1, position - _LOOK_BACK), -1):
        character = text[index]
        if character == "}":
            depth += 1
        elif character == "{":
            if depth == 0:
                start = index
            else:
                depth -= 1
        elif start is not None and not (character.isspace() or character in "[:\"'_" or character.isalpha()):
            break
    return start


def closing_brace(text: str, start: int) -> int:
    """Returns the position after the brace or bracket that closes the one at `start`; else the text's end."""
    pairs = {"{": "}", "[": "]", "(": ")"}
    stack: list[str] = []
    for match in _STRUCTURE.finditer(text, start):
        character = match[0]
        if character in pairs:
            stack.append(pairs[character])
        elif stack and character == stack[-1]:
            stack.pop()
            if not stack:
                return match.end()
    return len(text)


_STRUCTURE = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'(?=\s*[,:}\])])|[{}\[\]()]")
