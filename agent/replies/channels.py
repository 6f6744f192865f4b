"""Splits a reply of gpt-oss or Muse into its messages: thoughts, content and calls, by channel and recipient.

Harmony (gpt-oss) writes `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final...`, ATEM
(Muse) writes `to=self<|message|>...<|eom|><|start|>assistant to=user<|message|>...`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent.replies.thoughts import Span

_HEADER = re.compile(
    r"(?:<\|start\|>\s*assistant)?(?P<to>\s*to=[^\s<>|]{1,200})?"
    r"(?:<\|channel\|>(?P<channel>\w*)(?P<more>[^<]{0,300}))?(?:<\|constrain\|>[^<]{0,100})?<\|message\|>"
)
_BEGINS_WITH_HEADER = re.compile(r"\s*(?:<\|start\|>\s*assistant|<\|channel\|>|<\|message\|>|to=\S+<\|)")
_NEXT_MESSAGE = re.compile(r"<\|(?:end|eom|call)\|>\s*<\|start\|>\s*assistant")
_END = re.compile(r"<\|(?:end|return|call|eom|eot)\|>|(?=<\|start\|>)")
_RECIPIENT = re.compile(r"\bto=([^\s<>|]+)")
_THINKING, _USER = ("analysis", "self"), ("final", "user", "")


@dataclass
class Channels:
    """The messages of one reply, as positions in its text. A call includes its header."""

    thoughts: list[Span] = field(default_factory=list)
    content: list[Span] = field(default_factory=list)
    calls: list[Span] = field(default_factory=list)
    unfinished: bool = False
    """Whether the reply ends inside its thoughts, or before its first message."""


def split_channels(text: str) -> Channels | None:
    """Splits a reply into its messages; returns None for a reply without channel markup."""
    if not (_BEGINS_WITH_HEADER.match(text) or _NEXT_MESSAGE.search(text)):
        return None
    channels, preambles = Channels(), list[Span]()
    end = 0
    for header in _HEADER.finditer(text):
        if header.start() < end:
            continue
        if text[end : header.start()].strip():
            # The server removed the header of the first message, which holds the thoughts.
            (channels.content if end else channels.thoughts).append((end, header.start()))
        closing = _END.search(text, header.end())
        body = header.end(), closing.start() if closing else len(text)
        end = closing.end() if closing else len(text)
        recipient = _RECIPIENT.search(f"{header['to'] or ''} {header['more'] or ''}")
        channel = recipient[1] if recipient else header["channel"] or ""
        channels.unfinished = channel in _THINKING and closing is None
        if channel in _THINKING:
            channels.thoughts.append(body)
        elif channel in _USER:
            channels.content.append(body)
        elif recipient:
            channels.calls.append((header.start(), body[1]))
        else:  # commentary for the user, before a call or instead of an answer
            preambles.append(body)
    if channels.content:
        channels.thoughts += preambles
    else:
        channels.content = preambles
        channels.unfinished |= not preambles and not channels.calls
    return channels
