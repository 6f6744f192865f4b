"""Assembles a streamed Chat Completions reply into the form of an unstreamed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from agent.endpoint.quirks import reasoning_text

DeltaListener = Callable[[Literal["reasoning", "content"], str], None]


class BrokenStreamError(Exception):
    """A stream ended before its reply was complete."""


class FailedReplyError(Exception):
    """The endpoint reported a failure inside the reply. `code` is a short identifier of the failure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamedReply:
    """Collects the chunks of a stream and passes each piece of text to the listener at once."""

    def __init__(self, on_delta: DeltaListener) -> None:
        self.shown = False
        """Whether the listener received any text."""
        self.answered = False
        """Whether any chunk contained a choice."""
        self.finished = False
        """Whether a choice carried a finish reason."""
        self._on_delta = on_delta
        self._message: dict[str, Any] = {"role": "assistant"}
        self.calls: dict[int, dict[str, Any]] = {}
        """The calls so far by position, which is the index that the server sent unless calls share it."""
        self._positions: dict[int, int] = {}
        """Position of the current call of each index."""
        self._choice: dict[str, Any] = {}
        self._data: dict[str, Any] = {}

    def add(self, chunk: Any) -> None:
        """Adds one chunk of the stream: a dict, or a model of the SDK.

        In a dict, the `index` of each piece of a call becomes the call's position in `calls`.
        """
        chunk = chunk if isinstance(chunk, dict) else chunk.to_dict(warnings=False)
        self._data.update(
            {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        )
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            self.answered = True
            self.finished |= choice.get("finish_reason") is not None
            self._add_choice({key: value for key, value in choice.items() if key != "delta"})
            if isinstance(delta := choice.get("delta"), dict):
                self._add_delta(delta)

    def data(self) -> dict[str, Any]:
        """Returns the reply as a Chat Completion; without choices if no chunk contained one."""
        if not self.answered:
            return {**self._data, "choices": []}
        message = dict(self._message)
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return {**self._data, "choices": [{**self._choice, "message": message}]}

    def _add_choice(self, choice: dict[str, Any]) -> None:
        """Appends token ids and log-probabilities; for all other fields the last value counts."""
        pieces: dict[str, Any] = {key: choice[key] for key in ("token_ids", "logprobs") if key in choice}
        _merge(self._choice, pieces)
        self._choice.update({k: v for k, v in choice.items() if k not in pieces and v is not None})

    def _add_delta(self, delta: dict[str, Any]) -> None:
        calls = delta.get("tool_calls")
        for piece in calls if isinstance(calls, list) else []:
            if isinstance(piece, dict):
                piece["index"] = self._position(piece)
                _merge(self.calls.setdefault(piece["index"], {}), piece)
        rest = {key: value for key, value in delta.items() if key not in ("tool_calls", "role")}
        _merge(self._message, rest)
        for kind, text in (("reasoning", reasoning_text(delta)), ("content", delta.get("content"))):
            if isinstance(text, str) and text:
                self.shown = True
                self._on_delta("reasoning" if kind == "reasoning" else "content", text)

    def _position(self, piece: dict[str, Any]) -> int:
        """Returns the position of the call to which a piece belongs."""
        index = piece.get("index")
        if not isinstance(index, int):  # servers that omit the index send each call in one piece
            return self._free_position(0)
        current = self._positions.get(index)
        if current is None or _starts_call(self.calls[current], piece):
            self._positions[index] = self._free_position(index)
        return self._positions[index]

    def _free_position(self, index: int) -> int:
        return index if index not in self.calls else max(self.calls) + 1


def _starts_call(call: dict[str, Any], piece: dict[str, Any]) -> bool:
    """Returns whether a piece starts another call, although some servers send the same index for both.

    An id alone is not enough, because some servers send a new one with every piece, and others repeat the
    name. Without ids, a name after complete arguments starts a call.
    """
    name = _name(piece)
    if piece.get("id") and call.get("id") and piece["id"] != call["id"]:
        return bool(name) or _is_json_object(_arguments(call))
    if not name or not _arguments(call):
        return False
    if not _name(call).startswith(name):
        return True
    without_ids = not (piece.get("id") or call.get("id"))
    return (without_ids or bool(_arguments(piece).strip())) and _is_json_object(_arguments(call))


def _name(call: dict[str, Any]) -> str:
    return _function_text(call, "name")


def _arguments(call: dict[str, Any]) -> str:
    return _function_text(call, "arguments")


def _function_text(call: dict[str, Any], field: str) -> str:
    function = call.get("function")
    text = function.get(field) if isinstance(function, dict) else None
    return text if isinstance(text, str) else ""


def _is_json_object(text: str) -> bool:
    try:
        return text.rstrip().endswith("}") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _merge(target: dict[str, Any], delta: dict[str, Any]) -> None:
    """Concatenates texts and lists, and merges objects; replaces any other value."""
    for key, value in delta.items():
        if value is None or key == "index":
            continue
        current = target.get(key)
        if isinstance(current, dict) and isinstance(value, dict):
            _merge(current, value)
        elif isinstance(value, dict):
            target[key] = {}
            _merge(target[key], value)
        elif _is_continuation(key, current, value):
            target[key] = current + value
        else:
            target[key] = value


def _is_continuation(key: str, current: Any, piece: Any) -> bool:
    if isinstance(current, list):
        return isinstance(piece, list)
    if not isinstance(current, str) or not isinstance(piece, str) or key in ("id", "type"):
        return False
    # Some servers repeat the name in every piece, or send the name received so far; others split it.
    return key != "name" or not piece.startswith(current)
