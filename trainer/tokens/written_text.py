"""Finds in a rendered reply what the policy wrote: its thoughts, its content and its calls.

A chat template is a program that may drop, shorten or change what it is given. Training on its output is
right only if the output holds everything that the policy wrote.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agent.episode import Message
from trainer.tokens.chat_template import parse_json, thoughts_of
from trainer.tokens.prompt_end import opened_marks

_TAG = re.compile(r"</?(?:think|thinking|thought|thoughts|reasoning)>")
_BLANK = "\0"


class MissingTextError(ValueError):
    """A rendered reply lacks something that the policy wrote; the message names it, such as `thoughts`."""


def written_end(reply: str, message: Message) -> int:
    """Returns the position after the last character in `reply` that belongs to a field of `message`.

    Whitespace at the ends of a field and the layout of a call's arguments may differ from what the policy
    wrote; the text itself may not.

    Args:
        reply: text that the template rendered for the message.
        message: assistant message in OpenAI form, with its thoughts as `reasoning_content` or `reasoning`.

    Raises:
        MissingTextError: the reply lacks the name or an argument of a call, thoughts, or content.
    """
    thoughts = thoughts_of(message)
    fields: list[tuple[str, list[_Piece]]] = [
        ("thoughts", [[part] for part in _parts(thoughts)]),
        ("content", [[part] for part in _content_parts(reply, message.get("content"))]),
        *(("calls", _call_pieces(call)) for call in message.get("tool_calls") or []),
    ]
    end, rest = 0, reply
    # Longer fields first: a short one must not be found inside of a longer one.
    for name, pieces in sorted(fields, key=lambda field: -sum(len(piece[0]) for piece in field[1])):
        if not pieces:
            continue
        if (span := _find(rest, pieces)) is None:
            raise MissingTextError(name)
        end = max(end, span[1])
        rest = rest[: span[0]] + _BLANK * (span[1] - span[0]) + rest[span[1] :]
    return end


def split_added_thoughts(
    reply: str, message: Message, request: str, marks: tuple[str, str] | None
) -> tuple[str, str]:
    """Separates an empty block of thoughts, which the template added, from the rest of a reply.

    Templates of thinking models show a reply without thoughts as `<think></think>` and its content. The
    policy did not write this block: it stood in the prompt, or nowhere.

    Args:
        request: prompt of the reply; it may end with the opening of the thoughts.
        marks: text that the template puts before and after thoughts; None if unknown.

    Returns:
        The block, empty if there is none, and the rest. If the content contains thoughts, the block was not
        in the prompt either, and neither part has it.
    """
    if thoughts_of(message):
        return "", reply
    patterns = [
        r"\s*<([\w:]+)>\s*</\1>\s*",
        r"\s*\[(\w+)\]\s*\[/\1\]\s*",
        r"\s*<\|(?:START|start|begin)_(\w+)\|>\s*<\|(?:END|end)_\1\|>\s*",
    ]
    if opened := opened_marks(request):
        patterns.append(rf"\s*{re.escape(opened[1].strip())}\s*")
    if marks and all(mark.strip() for mark in marks):
        opening, closing = (re.escape(mark.strip()) for mark in marks)
        patterns.append(rf"\s*{opening}\s*{closing}\s*")
    block = max((found[0] for each in patterns if (found := re.match(each, reply))), key=len, default="")
    content = message.get("content")
    start = content.lstrip() if isinstance(content, str) else ""
    if block and start.startswith(block.split()[0].partition(">")[0]):
        own_block = any(re.match(each, start) for each in patterns)
        return "", reply if own_block else reply[len(block) :]
    return block, reply[len(block) :]


_Piece = list[str]
"""A piece of text in each form that a template may write it in; the first one is the plain form."""


def _find(text: str, pieces: list[_Piece]) -> tuple[int, int] | None:
    """Returns first and last position of the pieces in this order; None if one is missing."""
    start, end = -1, 0
    for piece in pieces:
        found = [(at, at + len(form)) for form in piece if (at := text.find(form, end)) >= 0]
        if not found:
            return None
        first, end = min(found)
        start = first if start < 0 else start
    return start, end


def _parts(text: Any) -> list[str]:
    return [text.strip()] if isinstance(text, str) and text.strip() else []


def _content_parts(reply: str, content: Any) -> list[str]:
    """Returns the content as parts to find: several if it holds thoughts, which templates move."""
    if isinstance(content, list):
        return [part for block in content if isinstance(block, dict) for part in _parts(block.get("text"))]
    whole = _parts(content)
    if not whole or whole[0] in reply:
        return whole
    return [part for text in _TAG.split(whole[0]) for part in _parts(text)]


def _call_pieces(call: dict[str, Any]) -> list[_Piece]:
    """Returns the name of a call, then the keys and values of its arguments."""
    function = call.get("function") or call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        text, arguments = arguments.strip(), parse_json(arguments or "{}")
        if not isinstance(arguments, dict):
            return [[str(function.get("name"))], [text]]
    return [[str(function.get("name"))], *_leaves(arguments)]


def _leaves(value: Any) -> list[_Piece]:
    if isinstance(value, dict):
        return [piece for key, each in value.items() for piece in (*_leaves(str(key)), *_leaves(each))]
    if isinstance(value, list):
        return [piece for each in value for piece in _leaves(each)]
    if isinstance(value, str):
        text = value.strip()
        escaped = [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
        return [[text, *escaped]] if text else []
    return [[json.dumps(value), str(value)]]
