"""Parses tool calls strictly, keeps them as the model wrote them, and explains errors to the model.

The calls of a reply are in `tool_calls` or, from servers and models that do not fill this field, in the text
as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from agent.episode import Message, tool_calls
from agent.replies import TAGGED_CALL, find_thoughts

_NAME = re.compile(r'"name"\s*:\s*"([^"\\]{1,200})"')
# A name with what servers leave of a model's template around it: `functions.NAME`,
# `NAME<|channel|>commentary`.
_NAME_WITH_TEMPLATE = re.compile(
    r"\W*(?:functions[./])?(?P<name>[\w.-]+)(?::\d+)?(?:[^\w.\-/:].*)?\Z", re.DOTALL
)
_MAX_QUOTED_CHARS = 400
_MAX_DEPTH = 32
_MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class ToolCall:
    """One tool call. `parsed` is None if the arguments are invalid; `problem` then gives the reason."""

    id: str
    name: str
    arguments: str
    parsed: dict[str, Any] | None
    problem: str | None


@dataclass(frozen=True)
class ParsedReply:
    """A reply's message for the conversation, and its calls. `source` is None if there are no calls."""

    message: Message
    calls: list[ToolCall]
    source: Literal["native", "text"] | None


def parse_reply(
    message: Message, *, turn: int, offered: Collection[str], taken: Collection[str], text_mode: bool
) -> ParsedReply:
    """Parses the calls of an assistant message.

    Missing and repeated ids are replaced by new ones, derived from `turn` so that a replayed reply gets the
    same ids. In text mode, `<tool_call>` text stays text. Otherwise it becomes `tool_calls` if it names an
    offered tool; an answer may merely quote the tag.

    Args:
        message: the endpoint's message; remains unchanged.
        turn: index of the turn.
        offered: names of the tools in the request.
        taken: call ids already used in this episode.
        text_mode: whether the user chose the text form of tool calling.
    """
    parser = _CallParser(_Ids(turn, taken), offered)
    if native := message.get("tool_calls"):
        entries = native if isinstance(native, list) else [native]
        parsed = [parser.parse_native(entry) for entry in entries]
        parsed_message = {**message, "tool_calls": [entry for entry, _ in parsed]}
        return ParsedReply(parsed_message, [call for _, call in parsed], "native")

    content = message.get("content")
    if not isinstance(content, str) or "<tool_call>" not in content:
        return ParsedReply(message, [], None)
    # A call that the model only thought about is not one.
    thoughts = find_thoughts(content)
    start = thoughts.blocks[-1][1] if thoughts.blocks and not thoughts.unfinished else 0
    calls = [parser.parse_tagged(inner) for inner in TAGGED_CALL.findall(content, start)]
    if not calls:
        return ParsedReply(message, [], None)
    if text_mode:
        return ParsedReply(message, calls, "text")
    if not any(call.name in offered for call in calls):
        return ParsedReply(message, [], None)
    parsed_message = {
        **message,
        "content": (content[:start] + TAGGED_CALL.sub("", content[start:])).strip(),
        "tool_calls": [_entry(c) for c in calls],
    }
    return ParsedReply(parsed_message, calls, "text")


def clean_tool_name(name: str, offered: Collection[str]) -> str:
    """Returns the offered tool that a call names, without remains of the model's template around the name.

    Some servers leave such remains, as in `functions.NAME`, `NAME:0` or `NAME<|channel|>commentary`. A name
    that matches no offered tool is returned unchanged.
    """
    if name in offered or len(name) > _MAX_NAME_CHARS:
        return name
    match = _NAME_WITH_TEMPLATE.match(name)
    return match["name"] if match and match["name"] in offered else name


def tool_messages(
    calls: list[ToolCall], results: list[str], source: Literal["native", "text"], text_mode: bool
) -> list[Message]:
    """Returns the messages that answer the calls: one for each, or one user message in text mode."""
    if source == "text" and text_mode:
        body = "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)
        return [{"role": "user", "content": body}]
    return [
        {"role": "tool", "tool_call_id": call.id, "content": result}
        for call, result in zip(calls, results, strict=True)
    ]


def parse_arguments(raw: str) -> tuple[dict[str, Any] | None, str | None]:
    """Parses arguments as a strict JSON object; returns the object, or None and the reason."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return None, f"not valid JSON: {error}"
    if not isinstance(value, dict):
        return None, f"expected a JSON object, not {type(value).__name__}"
    if _deeper_than(_MAX_DEPTH, value):
        return None, f"nested more than {_MAX_DEPTH} levels deep"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "it contains an unpaired surrogate"
    return value, None


def explain_malformed_call(call: ToolCall) -> str:
    """Returns the tool result for malformed arguments: the reason, and the model's own text."""
    return (
        f"Error: the arguments of {call.name or 'this call'} could not be read ({call.problem}). "
        f"You wrote: {truncate(call.arguments)}\nSend one JSON object that fits the tool's parameters."
    )


def truncate(text: str, limit: int = _MAX_QUOTED_CHARS) -> str:
    """Returns `text`; replaces its middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def has_malformed_arguments(messages: list[Message]) -> bool:
    """Returns whether any call in the history has arguments that are not a JSON object."""
    return any(parse_arguments(entry["function"]["arguments"])[0] is None for entry in tool_calls(messages))


def wrap_malformed_arguments(messages: list[Message]) -> list[Message]:
    """Wraps malformed arguments in an object, for servers that reject anything else in the history."""
    return [
        {**message, "tool_calls": [_wrap_call(entry) for entry in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _wrap_call(entry: dict[str, Any]) -> dict[str, Any]:
    function = entry["function"]
    if parse_arguments(function["arguments"])[0] is not None:
        return entry
    arguments = json.dumps({"malformed_arguments": function["arguments"]}, ensure_ascii=False)
    return {**entry, "function": {**function, "arguments": arguments}}


class _Ids:
    """Assigns call ids that are unique in the episode."""

    def __init__(self, turn: int, taken: Collection[str]) -> None:
        self._turn = turn
        self._taken = set(taken)
        self._count = 0

    def claim(self, proposed: Any) -> str:
        id = proposed if isinstance(proposed, str) and proposed else ""
        while not id or id in self._taken:
            id = f"call_{self._turn}_{self._count}"
            self._count += 1
        self._taken.add(id)
        return id


@dataclass(frozen=True)
class _CallParser:
    ids: _Ids
    offered: Collection[str]

    def parse_native(self, entry: Any) -> tuple[dict[str, Any], ToolCall]:
        """Returns the entry for the conversation, and the call."""
        entry = entry if isinstance(entry, dict) else {}
        value = entry.get("function")
        function = value if isinstance(value, dict) else {}
        arguments = function.get("arguments")
        if not isinstance(arguments, str):  # some servers send the object itself
            arguments = json.dumps(arguments, ensure_ascii=False) if arguments is not None else ""
        call = self._call(entry.get("id"), function.get("name"), arguments)
        function = {**function, "name": call.name, "arguments": arguments}
        return {**entry, "id": call.id, "type": "function", "function": function}, call

    def parse_tagged(self, inner: str) -> ToolCall:
        """Returns the call in the text between two tags."""
        inner = inner.strip()
        whole, problem = parse_arguments(inner)
        if whole is None:
            match = _NAME.search(inner)
            name = clean_tool_name(match[1], self.offered) if match else ""
            return ToolCall(self.ids.claim(None), name, inner, None, problem)
        value = whole.get("arguments", {})
        arguments = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self._call(None, whole.get("name"), arguments)

    def _call(self, id: Any, name: Any, arguments: str) -> ToolCall:
        parsed, problem = parse_arguments(arguments)
        name = clean_tool_name(name, self.offered) if isinstance(name, str) else ""
        return ToolCall(self.ids.claim(id), name, arguments, parsed, problem)


def _entry(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper_than(levels - 1, each) for each in inner)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
