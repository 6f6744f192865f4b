"""A streamed reply put together from its deltas into the shape of an unstreamed one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from agent.endpoint.quirks import reasoning_text

DeltaListener = Callable[[Literal["reasoning", "content"], str], None]


class BrokenStreamError(Exception):
    """A stream ended before its reply did."""


class FailedReplyError(Exception):
    """The endpoint says in the reply itself that it failed: a short word, and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamedReply:
    """Collects chunks; tells the listener of every piece of text as it comes."""

    def __init__(self, listen: DeltaListener) -> None:
        self.shown = False
        """Whether the listener was told anything."""
        self.answered = False
        """Whether any chunk carried a choice."""
        self.finished = False
        """Whether a choice said why it ended."""
        self._listen = listen
        self._message: dict[str, Any] = {"role": "assistant"}
        self.calls: dict[int, dict[str, Any]] = {}
        """The calls so far, by the position that the server gave them."""
        self._choice: dict[str, Any] = {}
        self._data: dict[str, Any] = {}

    def add(self, chunk: Any) -> None:
        """Take in one chunk of the stream, a dict or one of the SDK's."""
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
        """The whole as a Chat Completion; without choices when no chunk carried one."""
        if not self.answered:
            return {**self._data, "choices": []}
        message = dict(self._message)
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return {**self._data, "choices": [{**self._choice, "message": message}]}

    def _add_choice(self, choice: dict[str, Any]) -> None:
        """Token ids and log-probabilities come piece by piece; of anything else the last word holds."""
        pieces: dict[str, Any] = {key: choice[key] for key in ("token_ids", "logprobs") if key in choice}
        _merge(self._choice, pieces)
        self._choice.update({k: v for k, v in choice.items() if k not in pieces and v is not None})

    def _add_delta(self, delta: dict[str, Any]) -> None:
        calls = delta.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else []):
            if not isinstance(call, dict):
                continue
            # Servers that leave the index out send each call whole.
            index = call.get("index")
            _merge(
                self.calls.setdefault(index if isinstance(index, int) else len(self.calls) + position, {}),
                call,
            )
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
    if not isinstance(have, str) or not isinstance(piece, str) or key in ("id", "type"):
        return False
    # Some servers repeat the name in every piece, or send what they have of it so far; others split it.
    return key != "name" or not piece.startswith(have)
