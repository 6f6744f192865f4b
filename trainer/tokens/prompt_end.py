"""Aligns the end of a prompt with a conversation that continues it.

The prompt of a thinking model ends with an opening tag, or with an empty block if thinking is off. Templates
often write the reply in a conversation without it, or with other whitespace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.tokens.chat_template import RenderingError, thoughts_of

_NAME = r"[\w:]*(?:think|thought|reason)[\w:]*"
_TAG = re.compile(
    rf"(?P<tag><{_NAME}>|\[{_NAME}\]|<\|(?:start|begin)_(?:of_)?{_NAME}\|>)(?P<space>\s*)", re.IGNORECASE
)
_TAIL = 200
"""Characters at the end of a prompt that are searched for tags."""
_OPPOSITES = {"start": "end", "begin": "end", "START": "END", "BEGIN": "END"}


class _Block(NamedTuple):
    """Opening of thoughts at the end of a prompt."""

    start: int
    """Position of the opening tag."""
    opening: str
    closing: str
    """Closing tag."""
    space: str
    """Whitespace after the opening tag."""
    closed: bool
    """Whether the prompt closes the thoughts too, because thinking is off."""


def opens_thoughts(prompt: str) -> bool:
    """Returns whether a prompt ends with the tag that opens thoughts."""
    return opened_marks(prompt) is not None


def opened_marks(prompt: str) -> tuple[str, str] | None:
    """Returns the text that opens thoughts at the end of a prompt, and the text that closes them, if any."""
    block = _block_at_end(prompt)
    if block is None or block.closed:
        return None
    break_before, break_after = ("\n", "\n\n") if block.space else ("", "")
    return block.opening + block.space, break_before + block.closing + break_after


def without_thought_block(prompt: str) -> str:
    """Returns a prompt without the tag that opens thoughts, or the empty block, at its end."""
    block = _block_at_end(prompt)
    return prompt if block is None else prompt[: block.start]


def closing_of(opening: str, rest: str) -> str:
    """Returns the text that closes thoughts at the beginning of `rest`; empty if it is not known."""
    tag = _TAG.search(opening)
    at = rest.find(_closing_tag(tag["tag"])) if tag else -1
    if tag is None or at < 0 or rest[:at].strip():
        return ""
    after = rest[at + len(_closing_tag(tag["tag"])) :]
    return rest[: len(rest) - len(after.lstrip())]


def empty_block_end(text: str) -> int:
    """Returns the end of an empty block of thoughts, with whitespace, at the beginning of a text; else 0."""
    opening = _TAG.match(text, len(text) - len(text.lstrip()))
    if opening is None or not text.startswith(closing := _closing_tag(opening["tag"]), opening.end()):
        return 0
    rest = text[opening.end() + len(closing) :]
    return len(text) - len(rest.lstrip())


def text_after_prompt(prompt: str, whole: str, message: Mapping[str, Any]) -> str | None:
    """Returns the text that follows a prompt in a conversation; None if the conversation does not contain it.

    Args:
        prompt: prompt with the generation prompt.
        whole: conversation that ends with the reply.
        message: the reply.

    Raises:
        RenderingError: the prompt turns thinking off, but the reply has thoughts.
    """
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    if whole.startswith(prompt.rstrip()):
        return whole[len(prompt.rstrip()) :].lstrip()
    block = _block_at_end(prompt)
    if block is None or not whole.startswith(prompt[: block.start]):
        return None
    body = whole[block.start :]
    if block.closed:
        end = empty_block_end(body)
        if not end and body.lstrip().startswith(block.opening):
            raise RenderingError("its template turns thinking off, but the reply has thoughts")
        return body[end:]
    stripped = body.lstrip()
    if stripped.startswith(block.opening):
        return stripped.removeprefix(block.opening).lstrip()
    thoughts = (thoughts_of(message) or "").strip()
    if stripped.startswith(block.closing):
        return thoughts + body
    _, default_closing = opened_marks(prompt) or ("", "")
    return thoughts + default_closing + body


def text_without_header(base: str, prompt: str, whole: str) -> str | None:
    """Returns the text of a reply in a conversation that does not contain the generation prompt.

    Returns None if it contains a part of the generation prompt, which the reply cannot be separated from.

    Args:
        base: conversation before the reply.
        prompt: the same with the generation prompt.
        whole: the same with the reply.
    """
    if not (prompt.startswith(base) and whole.startswith(base)):
        return None
    header, rest = prompt[len(base) :].strip(), whole[len(base) :]
    return rest if header and rest.lstrip()[:1] != header[:1] and header not in rest else None


def _block_at_end(prompt: str) -> _Block | None:
    """Finds the last opening tag of a prompt, if nothing but its closing tag and whitespace follow."""
    tags = list(_TAG.finditer(prompt, max(0, len(prompt) - _TAIL)))
    if not tags:
        return None
    found = tags[-1]
    closing, rest = _closing_tag(found["tag"]), prompt[found.end() :]
    if rest.removeprefix(closing).strip():
        return None
    return _Block(found.start(), found["tag"], closing, found["space"], rest.startswith(closing))


def _closing_tag(opening: str) -> str:
    if opening.startswith("<|"):
        word = re.match(r"<\|([A-Za-z]+)", opening)
        start = word[1] if word else ""
        return opening.replace(start, _OPPOSITES.get(start, "end"), 1)
    return f"{opening[0]}/{opening[1:]}"
