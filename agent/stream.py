"""A streamed reply put together from its deltas into the shape of an unstreamed one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from agent.quirks import reasoning_text

DeltaListener = Callable[[Literal["reasoning", "content"], str], None]


class StreamedReply:
    """Collects chunks; tells the listener of every piece of text as it comes."""

    def __init__(self, listen: DeltaListener) -> None:
        self.shown = False
        """Whether the listener was told anything."""
        self.answered = False
        """Whether any chunk carried a choice."""
        self._listen = listen
        self._message: dict[str, Any] = {"role": "assistant"}
        self._calls: dict[int, dict[str, Any]] = {}
        self._choice: dict[str, Any] = {}
        self._data: dict[str, Any] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in one chunk of the stream."""
        self._data.update(
            {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        )
        for choice in chunk.get("choices") or []:
            if choice.get("index", 0) != 0:
                continue
            self.answered = True
            self._choice.update({k: v for k, v in choice.items() if k != "delta" and v is not None})
            self._add_delta(choice.get("delta") or {})

    def data(self) -> dict[str, Any]:
        """The whole as a Chat Completion; without choices when no chunk carried one."""
        if not self.answered:
            return {**self._data, "choices": []}
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return {**self._data, "choices": [{**self._choice, "message": message}]}

    def _add_delta(self, delta: dict[str, Any]) -> None:
        for position, call in enumerate(delta.get("tool_calls") or []):
            # Servers that leave the index out send each call whole.
            index = call.get("index")
            _merge(self._calls.setdefault(len(self._calls) + position if index is None else index, {}), call)
        rest = {key: value for key, value in delta.items() if key not in ("tool_calls", "role")}
        _merge(self._message, rest)
        for kind, text in (("reasoning", reasoning_text(delta)), ("content", delta.get("content"))):
            if isinstance(text, str) and text:
                self.shown = True
                self._listen("reasoning" if kind == "reasoning" else "content", text)


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Append text to text, list to list, merge objects; anything else replaces."""
    for key, value in delta.items():
        if value is None or key == "index":
            continue
        have = into.get(key)
        if isinstance(have, dict) and isinstance(value, dict):
            _merge(have, value)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value)
        elif _grows(key, have, value):
            into[key] = have + value
        else:
            into[key] = value


def _grows(key: str, have: Any, piece: Any) -> bool:
    if isinstance(have, list):
        return isinstance(piece, list)
    # Some servers repeat these in every piece.
    return isinstance(have, str) and isinstance(piece, str) and key not in ("id", "type", "name")
