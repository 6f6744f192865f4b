"""Replies that called both the rule tool and the caller's own tools.

The caller only sees its own calls. When it sends their results, the gateway restores the reply: the call of
the rule tool, its result, and fields such as reasoning that the caller's library did not send back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from agent.episode import Message, digest_of

_MAX_REPLIES = 4096
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _MixedReply:
    message: Message
    results: dict[str, str]
    size: int


class MixedCallStore:
    """Mixed Chat Completions replies, bounded. A reply that was dropped is not restored."""

    def __init__(self, max_replies: int = _MAX_REPLIES, max_bytes: int = _MAX_BYTES) -> None:
        self._max_replies, self._max_bytes = max_replies, max_bytes
        self._replies: OrderedDict[str, _MixedReply] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, caller: str, messages: list[Message], message: Message, results: dict[str, str]) -> None:
        """Stores a whole reply; `results` maps the ids of the rule tool's calls to their results."""
        calls = [entry for entry in message["tool_calls"] if entry.get("id") not in results]
        key = _key(caller, _last_question(messages), calls)
        if key is None:
            return
        size = len(str(message)) + sum(map(len, results.values()))
        self._drop(key)
        self._replies[key] = _MixedReply(message, results, size)
        self._bytes += size
        while len(self._replies) > self._max_replies or self._bytes > self._max_bytes:
            self._drop(next(iter(self._replies)))

    def restore(self, caller: str, messages: list[Any]) -> tuple[list[Any], int]:
        """Returns the caller's messages with every stored reply restored, and the number of these."""
        restored: list[Any] = []
        question: Any = None
        count = 0
        for message in messages:
            calls = message.get("tool_calls") if isinstance(message, dict) else None
            key = _key(caller, question, calls) if isinstance(calls, list) else None
            reply = self._replies.get(key) if key else None
            if reply is None or key is None:
                restored.append(message)
            else:
                self._replies.move_to_end(key)
                restored += _restored(message, reply)
                count += 1
            if isinstance(message, dict) and message.get("role") == "user":
                question = message.get("content")
        return restored, count

    def _drop(self, key: str) -> None:
        if (reply := self._replies.pop(key, None)) is not None:
            self._bytes -= reply.size


def _restored(message: Message, reply: _MixedReply) -> list[Message]:
    entries = {entry["id"]: entry for entry in message["tool_calls"]}
    fields = {name: value for name, value in message.items() if value not in (None, "", [])}
    calls = [entries.get(entry["id"], entry) for entry in reply.message["tool_calls"]]
    results = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in reply.results.items()]
    return [{**reply.message, **fields, "tool_calls": calls}, *results]


def _key(caller: str, question: Any, calls: list[Any]) -> str | None:
    """Some servers reuse call ids across conversations, so the key includes the question."""
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
    """The rule tool's calls and results in Responses replies; the oldest are dropped."""

    _by_call: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _by_item: OrderedDict[str, list[Item]] = field(default_factory=OrderedDict)
    _response_ids: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def add(self, caller: str, response_id: Any, calls: list[Item], items: list[Item]) -> None:
        """Stores a mixed reply's hidden items under its id and under the ids of the caller's calls."""
        for id in [response_id, *(item.get("call_id") for item in calls)]:
            if isinstance(id, str):
                self._by_call[f"{caller} {id}"] = items
        while len(self._by_call) > _MAX_REPLIES:
            self._by_call.popitem(last=False)

    def add_after(self, caller: str, item_id: Any, items: list[Item]) -> None:
        """Stores a hidden turn's items under the id of the last item of the turn that the caller saw."""
        if isinstance(item_id, str):
            self._by_item[f"{caller} {item_id}"] = items
        while len(self._by_item) > _MAX_REPLIES:
            self._by_item.popitem(last=False)

    def rename_response(self, caller: str, visible_id: Any, upstream_id: Any) -> None:
        """Records that the caller saw a response under another id than the upstream's."""
        self._response_ids[f"{caller} {visible_id}"] = str(upstream_id)
        while len(self._response_ids) > _MAX_REPLIES:
            self._response_ids.popitem(last=False)

    def upstream_id(self, caller: str, visible_id: Any) -> Any:
        """Returns the upstream's id of a response that the caller names."""
        return self._response_ids.get(f"{caller} {visible_id}", visible_id)

    def restore(self, caller: str, previous: Any, items: list[Any]) -> tuple[list[Any], int]:
        """Returns the caller's items with the hidden ones restored, and the number of replies restored.

        If the caller names the previous response, the upstream has its calls: only results are missing.
        """
        restored: list[Any] = []
        replies: list[int] = []
        if isinstance(previous, str) and (hidden := self._by_call.get(f"{caller} {previous}")) is not None:
            restored += [item for item in hidden if item["type"] == "function_call_output"]
            replies.append(id(hidden))
        for item in items:
            if isinstance(item, dict) and item.get("type") == "function_call":
                hidden = self._by_call.get(f"{caller} {item.get('call_id')}")
                if hidden is not None and id(hidden) not in replies:
                    restored += hidden
                    replies.append(id(hidden))
            restored.append(item)
            after = self._by_item.get(f"{caller} {item.get('id')}") if isinstance(item, dict) else None
            if after is not None:
                restored += after
                replies.append(id(after))
        return restored, len(replies)
