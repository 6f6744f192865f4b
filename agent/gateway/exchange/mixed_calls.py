"""Replies that called the rule tool and the caller's tools at once.

The caller is shown its own calls only. When it sends their results, the reply is made whole again: our call,
what the rules said, and fields such as thoughts that the caller's library did not send back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from agent.episode import Message, digest_of

_MOST = 4096  # replies
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Half:
    message: Message
    ours: dict[str, str]
    size: int


class MixedCallStore:
    """A bounded memory; what it forgot is simply not put back, and the caller's history stands by itself."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._halves: OrderedDict[str, _Half] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._halves)

    def keep(self, caller: str, messages: list[Message], message: Message, ours: dict[str, str]) -> None:
        """Keep a whole reply; `ours` maps the ids of our calls to what answers them."""
        theirs = [entry for entry in message["tool_calls"] if entry.get("id") not in ours]
        key = _key(caller, _last_question(messages), theirs)
        if key is None:
            return
        size = len(str(message)) + sum(map(len, ours.values()))
        self._forget(key)
        self._halves[key] = _Half(message, ours, size)
        self._bytes += size
        while len(self._halves) > self._most or self._bytes > self._most_bytes:
            self._forget(next(iter(self._halves)))

    def restore(self, caller: str, messages: list[Any]) -> tuple[list[Any], int]:
        """The caller's messages with every known reply made whole, and how many were."""
        whole: list[Any] = []
        question: Any = None
        count = 0
        for message in messages:
            calls = message.get("tool_calls") if isinstance(message, dict) else None
            key = _key(caller, question, calls) if isinstance(calls, list) else None
            half = self._halves.get(key) if key else None
            if half is None or key is None:
                whole.append(message)
            else:
                self._halves.move_to_end(key)
                whole += _made_whole(message, half)
                count += 1
            if isinstance(message, dict) and message.get("role") == "user":
                question = message.get("content")
        return whole, count

    def _forget(self, key: str) -> None:
        if (half := self._halves.pop(key, None)) is not None:
            self._bytes -= half.size


def _made_whole(message: Message, half: _Half) -> list[Message]:
    theirs = {entry["id"]: entry for entry in message["tool_calls"]}
    said = {name: value for name, value in message.items() if value not in (None, "", [])}
    calls = [theirs.get(entry["id"], entry) for entry in half.message["tool_calls"]]
    results = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in half.ours.items()]
    return [{**half.message, **said, "tool_calls": calls}, *results]


def _key(caller: str, question: Any, calls: list[Any]) -> str | None:
    """Some servers number the calls of every conversation alike: ids alone do not tell replies apart."""
    named = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            return None
        named.append([call["id"], function.get("name")])
    return digest_of([caller, question, sorted(named, key=str)]) if named else None


def _last_question(messages: list[Any]) -> Any:
    users = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    return users[-1].get("content") if users else None


Item = dict[str, Any]


@dataclass
class MixedItemStore:
    """Our calls and their answers in replies that called the caller's tools too; the oldest are forgotten."""

    _kept: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _after: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _names: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def keep(self, caller: str, response_id: Any, theirs: list[Item], ours: list[Item]) -> None:
        """Keep our items of a reply under its id and under the ids of the caller's calls."""
        for id in [response_id, *(item.get("call_id") for item in theirs)]:
            if isinstance(id, str):
                self._kept[f"{caller} {id}"] = ours
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def keep_after(self, caller: str, item_id: Any, ours: list[Item]) -> None:
        """Keep our items of a hidden turn under the id of the last of its items that the caller was shown."""
        if isinstance(item_id, str):
            self._after[f"{caller} {item_id}"] = ours
        while len(self._after) > _MOST:
            self._after.popitem(last=False)

    def rename(self, caller: str, shown: Any, real: Any) -> None:
        """Note that the caller knows a reply under another id than the upstream."""
        self._names[f"{caller} {shown}"] = str(real)
        while len(self._names) > _MOST:
            self._names.popitem(last=False)

    def real(self, caller: str, shown: Any) -> Any:
        """The upstream's id of a reply that the caller names."""
        return self._names.get(f"{caller} {shown}", shown)

    def restore(self, caller: str, previous: Any, items: list[Any]) -> tuple[list[Any], int]:
        """The caller's items with ours put back, and in how many replies.

        A caller that names the previous reply has its calls at the upstream: only answers are missing.
        """
        whole: list[Any] = []
        done: list[int] = []
        if isinstance(previous, str) and (ours := self._kept.get(f"{caller} {previous}")) is not None:
            whole += [item for item in ours if item["type"] == "function_call_output"]
            done.append(id(ours))
        for item in items:
            if isinstance(item, dict) and item.get("type") == "function_call":
                ours = self._kept.get(f"{caller} {item.get('call_id')}")
                if ours is not None and id(ours) not in done:
                    whole += ours
                    done.append(id(ours))
            whole.append(item)
            if isinstance(item, dict) and (ours := self._after.get(f"{caller} {item.get('id')}")) is not None:
                whole += ours
                done.append(id(ours))
        return whole, len(done)
