"""Tool calls as models write them: read strictly, kept as written, and explained back when they are wrong.

A reply's calls come in its `tool_calls`, or, from a server or model without that field, as
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` in its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from agent.episode import Message, tool_calls

# An unclosed tag runs to the end: the reply was cut off, or generation stopped at the closing tag.
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]{1,200})"')
_SHOWN = 400
_DEEPEST = 32


@dataclass(frozen=True)
class ToolCall:
    """One call; `parsed` is None exactly when `problem` says why."""

    id: str
    name: str
    arguments: str
    parsed: dict[str, Any] | None
    problem: str | None


@dataclass(frozen=True)
class ParsedReply:
    """A reply as it goes into the conversation, and its calls; `source` is None when there are none."""

    message: Message
    calls: list[ToolCall]
    source: Literal["native", "text"] | None


def parse_reply(
    message: Message, *, turn: int, offered: Collection[str], taken: Collection[str], text_mode: bool
) -> ParsedReply:
    """Read the calls in an assistant message.

    Missing and repeated ids get fresh ones, derived from `turn` so that a replayed reply gets the same. In
    text mode `<tool_call>` text stays text; otherwise it becomes `tool_calls`, provided that it names a tool
    that was offered (an answer may merely quote the tag).

    Args:
        message: as it came from the endpoint; not changed.
        turn: index of the turn.
        offered: names of the tools sent.
        taken: call ids already used in this episode.
        text_mode: whether the user chose the text form of tool calling.
    """
    ids = _Ids(turn, taken)
    if native := message.get("tool_calls"):
        entries = native if isinstance(native, list) else [native]
        read = [_read_native(entry, ids) for entry in entries]
        echoed = {**message, "tool_calls": [entry for entry, _ in read]}
        return ParsedReply(echoed, [call for _, call in read], "native")

    content = message.get("content")
    if not isinstance(content, str) or "<tool_call>" not in content:
        return ParsedReply(message, [], None)
    calls = [_read_tagged(inner, ids) for inner in _TAGGED.findall(content)]
    if text_mode:
        return ParsedReply(message, calls, "text")
    if not any(call.name in offered for call in calls):
        return ParsedReply(message, [], None)
    echoed = {
        **message,
        "content": _TAGGED.sub("", content).strip(),
        "tool_calls": [_entry(c) for c in calls],
    }
    return ParsedReply(echoed, calls, "text")


def tool_messages(
    calls: list[ToolCall], results: list[str], source: Literal["native", "text"], text_mode: bool
) -> list[Message]:
    """The messages that answer the calls: one each, or one user message when the calls stayed text."""
    if source == "text" and text_mode:
        body = "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)
        return [{"role": "user", "content": body}]
    return [
        {"role": "tool", "tool_call_id": call.id, "content": result}
        for call, result in zip(calls, results, strict=True)
    ]


def parse_arguments(raw: str) -> tuple[dict[str, Any] | None, str | None]:
    """Strict JSON object, or the reason why it is not one."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return None, f"not valid JSON: {error}"
    if not isinstance(value, dict):
        return None, f"a JSON object is needed, not {type(value).__name__}"
    if _deeper_than(_DEEPEST, value):
        return None, f"nested more than {_DEEPEST} levels deep"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "half of a surrogate pair is not text"
    return value, None


def explain_malformed_call(call: ToolCall) -> str:
    """What a model is told about arguments that it got wrong: the reason, and what it wrote."""
    return (
        f"Error: the arguments of {call.name or 'this call'} could not be read ({call.problem}). "
        f"You wrote: {truncate(call.arguments)}\nSend one JSON object that fits the tool's parameters."
    )


def truncate(text: str, limit: int = _SHOWN) -> str:
    """`text`, with its middle left out when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def has_malformed_arguments(messages: list[Message]) -> bool:
    """Whether any echoed call carries arguments that are not a JSON object."""
    return any(parse_arguments(entry["function"]["arguments"])[0] is None for entry in tool_calls(messages))


def with_readable_arguments(messages: list[Message]) -> list[Message]:
    """The same messages with malformed arguments wrapped in an object, for servers that insist on one."""
    return [
        {**message, "tool_calls": [_wrapped(entry) for entry in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _wrapped(entry: dict[str, Any]) -> dict[str, Any]:
    function = entry["function"]
    if parse_arguments(function["arguments"])[0] is not None:
        return entry
    arguments = json.dumps({"malformed_arguments": function["arguments"]}, ensure_ascii=False)
    return {**entry, "function": {**function, "arguments": arguments}}


class _Ids:
    """Hands out ids that no other call of the episode has."""

    def __init__(self, turn: int, taken: Collection[str]) -> None:
        self._turn = turn
        self._taken = set(taken)
        self._count = 0

    def claim(self, wanted: Any) -> str:
        chosen = wanted if isinstance(wanted, str) and wanted else ""
        while not chosen or chosen in self._taken:
            chosen = f"call_{self._turn}_{self._count}"
            self._count += 1
        self._taken.add(chosen)
        return chosen


def _read_native(entry: Any, ids: _Ids) -> tuple[dict[str, Any], ToolCall]:
    """The entry as it is echoed, and the call in it."""
    entry = entry if isinstance(entry, dict) else {}
    found = entry.get("function")
    function = found if isinstance(found, dict) else {}
    name = function.get("name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = json.dumps(arguments, ensure_ascii=False) if arguments is not None else ""
    parsed, problem = parse_arguments(arguments)
    call = ToolCall(
        ids.claim(entry.get("id")), name if isinstance(name, str) else "", arguments, parsed, problem
    )
    echoed_function = {**function, "name": call.name, "arguments": arguments}
    return {**entry, "id": call.id, "type": "function", "function": echoed_function}, call


def _read_tagged(inner: str, ids: _Ids) -> ToolCall:
    inner = inner.strip()
    whole, problem = parse_arguments(inner)
    if whole is None:
        name = _NAME.search(inner)
        return ToolCall(ids.claim(None), name[1] if name else "", inner, None, problem)
    name_value, given = whole.get("name"), whole.get("arguments", {})
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    parsed, problem = parse_arguments(arguments)
    return ToolCall(
        ids.claim(None), name_value if isinstance(name_value, str) else "", arguments, parsed, problem
    )


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
