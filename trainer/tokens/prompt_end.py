"""Aligns the end of a prompt with a conversation that continues it.

The prompt of a thinking model ends with an opening tag, or with an empty block if thinking is off. Templates
often write the reply in a conversation without it, or with other whitespace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainer.tokens.chat_template import RenderingError, thoughts_of

_OPENED = re.compile(r"<(?P<tag>[\w:]+)>(?P<space>\s*)(?P<closed></(?P=tag)>\s*)?$")


def opens_thoughts(prompt: str) -> bool:
    """Returns whether a prompt ends with the tag that opens thoughts."""
    return opened_marks(prompt) is not None


def opened_marks(prompt: str) -> tuple[str, str] | None:
    """Returns the text that opens thoughts at the end of a prompt, and the text that closes them, if any."""
    opened = _OPENED.search(prompt)
    if opened is None or opened["closed"]:
        return None
    break_before, break_after = ("\n", "\n\n") if opened["space"] else ("", "")
    return opened[0], f"{break_before}</{opened['tag']}>{break_after}"


def without_thought_block(prompt: str) -> str:
    """Returns a prompt without the tag that opens thoughts, or the empty block, at its end."""
    return _OPENED.sub("", prompt)


def text_after_prompt(prompt: str, whole: str, message: Mapping[str, Any]) -> str | None:
    """Returns the text of a reply after the prompt that asked for it; None if it does not follow the prompt.

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
    if (opened := _OPENED.search(prompt)) is None or not whole.startswith(prompt[: opened.start()]):
        return None
    body, tag = whole[opened.start() :], re.escape(opened["tag"])
    if opened["closed"]:
        empty = re.match(rf"\s*<{tag}>\s*</{tag}>\s*", body)
        if empty is None and body.lstrip().startswith(f"<{opened['tag']}>"):
            raise RenderingError("its template turns thinking off, but the reply has thoughts")
        return body[empty.end() :] if empty else body
    if written := re.match(rf"\s*<{tag}>\s*", body):
        return body[written.end() :]
    closing = re.match(rf"\s*</{tag}>\s*", body)
    _, default_closing = opened_marks(prompt) or ("", "")
    thoughts = (thoughts_of(message) or "").strip()
    if closing:
        return thoughts + closing[0] + body[closing.end() :]
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
