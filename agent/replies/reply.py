"""Parses a reply into thoughts, calls and answer, in the same way for agent, evaluation and trainer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from agent.replies.call_forms import PARTS_OF_MARKS, TOOL_RESULT
from agent.replies.calls import WrittenCall, find_calls
from agent.replies.channels import Channels, split_channels
from agent.replies.thoughts import find_thoughts
from agent.replies.visible import announces_call, visible_text

# Some models that think enclose the answer in a tag of its own too.
_WRAPPED = re.compile(r"<(answer|response|output|solution|final_answer)>(.*?)(?:</\1>)?", re.DOTALL)

# Without one of these, a text has neither thoughts nor calls nor channels.
_SIGNS = (*"[{`=◁", *PARTS_OF_MARKS, "analysis", "my thought process")


@dataclass(frozen=True)
class ReplyParts:
    """The parts of a reply's text."""

    thoughts: str = ""
    """Text of the thoughts, without their tags."""
    content: str = ""
    """The text outside of thoughts and calls; the whole text, unchanged, if the reply has neither."""
    calls: list[WrittenCall] = field(default_factory=list)
    """Calls that no server parsed; their positions refer to the text outside of the thoughts."""
    unfinished_thoughts: bool = False
    """Whether the reply ends inside its thoughts."""
    opened_in_prompt: bool = False
    """Whether the reply closes thoughts that it did not open: the chat template opens them."""
    misplaced_thoughts: bool = False
    """Whether there are thoughts outside one closed block at the start."""

    @property
    def answer(self) -> str:
        """The text that a user sees; "" if it has no content, or only announces the call that follows."""
        content = self.content
        if self.thoughts and (wrapped := _WRAPPED.fullmatch(content.strip())):
            content = wrapped[2]
        text = visible_text(content)
        return "" if self.calls and announces_call(text) else text


def read_reply(text: str, tools: Collection[str] = (), *, opened: bool = False) -> ReplyParts:
    """Reads the text of a reply; never raises, in time linear in the length of the text.

    Args:
        text: the content of an assistant message, which the server may have parsed in part or not at all.
        tools: names of the tools that the model was offered.
        opened: whether the prompt is known to end with the opening tag of thoughts; a reply that does not
            close them then consists of thoughts only.
    """
    if not opened and _is_plain(text, tools):
        return ReplyParts(content=text)
    if not opened and (channels := split_channels(text)) is not None:
        return _from_channels(text, channels, tools)
    thoughts = find_thoughts(text, opened=opened)
    outside = thoughts.outside(text)
    inside = thoughts.inside(text)
    calls = find_calls(outside, tools)
    if thoughts.unfinished and not calls:
        # Models that call before they close their thoughts stop after the call.
        calls = [call for call in find_calls(inside, tools) if call.end >= len(inside.rstrip())]
        inside = inside[: calls[0].start] if calls else inside
        content = outside
    else:
        content = _without(outside, calls)
    return ReplyParts(
        thoughts=inside,
        content=TOOL_RESULT.sub(" ", content),
        calls=calls,
        unfinished_thoughts=thoughts.unfinished,
        opened_in_prompt=thoughts.opened_in_prompt,
        misplaced_thoughts=thoughts.misplaced,
    )


def _is_plain(text: str, tools: Collection[str]) -> bool:
    lowered = text.lower()
    for sign in _SIGNS:
        if sign in lowered:
            return False
    return not any(tool.lower() in lowered for tool in tools)


def _from_channels(text: str, channels: Channels, tools: Collection[str]) -> ReplyParts:
    calls = [
        WrittenCall(start, end, text[start:end], _recipient(text[start:end])) for start, end in channels.calls
    ]
    content = "\n".join(text[start:end] for start, end in channels.content)
    written = find_calls(content, tools)
    return ReplyParts(
        thoughts="\n".join(text[start:end].strip() for start, end in channels.thoughts),
        content=_without(content, written),
        calls=[*calls, *written],
        unfinished_thoughts=channels.unfinished,
    )


def _recipient(header: str) -> str | None:
    name = header.partition("to=")[2].split("<")[0].split()
    return name[0].removeprefix("functions.") if name else None


def _without(text: str, calls: list[WrittenCall]) -> str:
    parts, end = [], 0
    for call in calls:
        parts.append(text[end : call.start])
        end = call.end
    return " ".join([*parts, text[end:]])
