"""Replies that called both the rule tool and the caller's own tools.

The caller only sees its own calls. When it sends their results, the gateway restores the reply: the call of
the rule tool, its result, and fields such as reasoning that the caller's library did not send back.

A stored reply is identified by everything that preceded it, since some servers reuse call ids in every
conversation. If two different replies fit, neither is restored: a consultation must never appear in another
conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.episode import Message, digest_of
from agent.gateway.exchange.history import (
    CallSignature,
    call_signatures,
    canonical_arguments,
    canonical_entry,
    history_digests,
    identity_digest,
    same_calls,
)

MAX_REPLIES = 4096
MAX_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True)
class _StoredReply(Generic[T]):
    calls: list[CallSignature]
    hidden: T


class ReplyStore(Generic[T]):
    """Hidden parts of replies, by a digest of the preceding conversation. Bounded; drops the oldest."""

    def __init__(self, max_replies: int = MAX_REPLIES, max_bytes: int = MAX_BYTES) -> None:
        self._max_replies, self._max_bytes = max_replies, max_bytes
        self._replies: OrderedDict[str, list[_StoredReply[T]]] = OrderedDict()
        self._plain: OrderedDict[str, list[list[CallSignature]]] = OrderedDict()
        """Calls of replies without a hidden part, which make an equal stored reply ambiguous."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, key: str, calls: list[CallSignature], hidden: T) -> None:
        """Stores a reply with the caller's calls in it."""
        reply = _StoredReply(calls, hidden)
        replies = self._replies.setdefault(key, [])
        if reply in replies:
            return
        replies.append(reply)
        self._bytes += len(str(reply))
        while len(self._replies) > self._max_replies or self._bytes > self._max_bytes:
            _, dropped = self._replies.popitem(last=False)
            self._bytes -= sum(len(str(each)) for each in dropped)

    def add_plain(self, key: str, calls: list[CallSignature]) -> None:
        """Stores that a reply with these calls has no hidden part."""
        self._plain.setdefault(key, []).append(calls)
        while len(self._plain) > self._max_replies:
            self._plain.popitem(last=False)

    def find(self, key: str, fits: Callable[[list[CallSignature], T | None], bool]) -> T | None:
        """Returns the hidden part of the only matching reply; None if no reply or several replies match.

        Args:
            key: digest of what precedes the reply.
            fits: called with the caller's calls in a reply, and its hidden part (None if it has none).
        """
        replies = [each for each in self._replies.get(key, ()) if fits(each.calls, each.hidden)]
        if len(replies) != 1 or any(fits(calls, None) for calls in self._plain.get(key, ())):
            return None
        self._replies.move_to_end(key)
        return replies[0].hidden

    def __contains__(self, key: str) -> bool:
        return key in self._replies


@dataclass(frozen=True)
class _MixedReply:
    message: Message
    results: Mapping[str, str]
    """Results of the rule tool's calls, by call id."""


class MixedCallStore:
    """Mixed Chat Completions replies."""

    def __init__(self) -> None:
        self._store: ReplyStore[_MixedReply] = ReplyStore()

    def add(self, caller: str, body: Mapping[str, Any], message: Message, results: Mapping[str, str]) -> None:
        """Stores the reply to a request; `results` maps the ids of the rule tool's calls to their results."""
        calls = [entry for entry in message.get("tool_calls") or [] if entry.get("id") not in results]
        if not calls:
            return
        key = history_digests(caller, body, body["messages"])[-1]
        if results:
            self._store.add(key, call_signatures(calls), _MixedReply(message, results))
        else:
            self._store.add_plain(key, call_signatures(calls))

    def restore(self, caller: str, body: Mapping[str, Any], messages: list[Any]) -> tuple[list[Any], int]:
        """Returns the caller's messages with every stored reply restored, and the number of these."""
        if not len(self._store):
            return messages, 0
        digests = history_digests(caller, body, messages)
        taken = {id for message in messages for id, _, _ in call_signatures(_calls(message))}
        restored: list[Any] = []
        count = 0
        for digest, message in zip(digests, messages, strict=False):
            reply = self._find(digest, message) if digest in self._store else None
            if reply is None:
                restored.append(message)
            else:
                restored += _restore(message, reply, taken)
                count += 1
        return restored, count

    def _find(self, key: str, message: Any) -> _MixedReply | None:
        signatures = call_signatures(_calls(message))
        return self._store.find(key, lambda calls, hidden: same_calls(calls, signatures))


def _restore(message: Message, reply: _MixedReply, taken: set[str | None]) -> list[Message]:
    """Returns the whole reply and the rule tool's results. Their ids are not in `taken`, which grows."""
    own = iter(_calls(message))
    fields = {name: value for name, value in message.items() if value not in (None, "", [])}
    calls, results = [], []
    for entry in reply.message["tool_calls"]:
        if entry.get("id") not in reply.results:
            calls.append(next(own))
            continue
        id = unused_id(entry["id"], taken)
        calls.append({**entry, "id": id})
        results.append({"role": "tool", "tool_call_id": id, "content": reply.results[entry["id"]]})
    return [{**reply.message, **fields, "tool_calls": calls}, *results]


def unused_id(id: str, taken: set[str | None]) -> str:
    """Returns the id, or a variant of it that is not in `taken`, and adds it to `taken`."""
    chosen, number = id, 0
    while chosen in taken:
        number += 1
        chosen = f"{id}_{number}"
    taken.add(chosen)
    return chosen


def _calls(message: Any) -> list[Any]:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return calls if isinstance(calls, list) else []


Item = dict[str, Any]


@dataclass(frozen=True)
class Insertion:
    """Hidden items, and the visible item that they follow or precede."""

    anchor: Item
    before: bool
    items: list[Item]


@dataclass(frozen=True)
class _ItemReply:
    visible: list[Item]
    """The reply's items as the caller saw them."""
    insertions: list[Insertion]


class MixedItemStore:
    """The rule tool's calls and results in Responses replies."""

    def __init__(self) -> None:
        self._by_history: ReplyStore[_ItemReply] = ReplyStore()
        self._by_response: ReplyStore[list[Item]] = ReplyStore()
        self._response_ids: OrderedDict[str, str | None] = OrderedDict()

    def add(
        self, caller: str, body: Mapping[str, Any], visible: list[Item], insertions: list[Insertion]
    ) -> None:
        """Stores which hidden items belong into the reply to a request."""
        calls = _item_signatures(visible)
        if not calls and not insertions:
            return
        key = history_digests(caller, body, input_items(body))[-1]
        if insertions:
            self._by_history.add(key, calls, _ItemReply(visible, list(insertions)))
        else:
            self._by_history.add_plain(key, calls)

    def add_results(
        self, caller: str, body: Mapping[str, Any], response_id: Any, calls: list[Item], results: list[Item]
    ) -> None:
        """Stores the rule tool's results in a reply, for a caller that names the response.

        Without results it stores that the reply has none: some servers reuse ids of responses.
        """
        if not isinstance(response_id, str):
            return
        key = digest_of([identity_digest(caller, body), response_id])
        if results:
            self._by_response.add(key, _item_signatures(calls), results)
        else:
            self._by_response.add_plain(key, _item_signatures(calls))
        if f"{caller} {response_id}" in self._response_ids:
            self.rename_response(caller, response_id, response_id)  # ambiguous from now on

    def rename_response(self, caller: str, visible_id: Any, upstream_id: Any) -> None:
        """Records that the caller saw a response under another id than the upstream's."""
        key = f"{caller} {visible_id}"
        known = self._response_ids.get(key, str(upstream_id))
        self._response_ids[key] = known if known == str(upstream_id) else None
        while len(self._response_ids) > MAX_REPLIES:
            self._response_ids.popitem(last=False)

    def upstream_id(self, caller: str, visible_id: Any) -> Any:
        """Returns the upstream's id of a response that the caller names."""
        return self._response_ids.get(f"{caller} {visible_id}") or visible_id

    def upstream_path(self, caller: str, path: str) -> str:
        """Returns a path below /v1 with the upstream's id of the response that it names."""
        parts = path.split("/")
        if len(parts) > 2 and parts[1] == "responses":
            parts[2] = str(self.upstream_id(caller, parts[2]))
        return "/".join(parts)

    def restore(self, caller: str, body: Mapping[str, Any], previous: Any) -> tuple[list[Any], int]:
        """Returns the caller's items with the hidden ones restored, and the number of replies restored.

        If the caller names the previous response, the upstream has its calls: only results are missing.
        """
        items = input_items(body)
        taken: set[str | None] = {item.get("call_id") for item in items if isinstance(item, dict)}
        restored, count = self._results_for(caller, body, previous, items), 0
        count += bool(restored)
        if not len(self._by_history):
            return [*restored, *items], count
        digests = history_digests(caller, body, items)
        index = 0
        while index < len(items):
            end = _end_of_reply(items, index)
            reply = self._find(digests[index], items[index:end])
            if reply is None:
                restored.append(items[index])
                index += 1
            else:
                restored += _insert(items[index:end], reply, taken)
                count += 1
                index = end
        return restored, count

    def _results_for(
        self, caller: str, body: Mapping[str, Any], previous: Any, items: list[Any]
    ) -> list[Any]:
        if not isinstance(previous, str):
            return []
        key = digest_of([identity_digest(caller, body), previous])
        answers = [item for item in items if isinstance(item, dict)]
        answered = {each.get("call_id") or each.get("approval_request_id") for each in answers}
        results = self._by_response.find(key, lambda calls, hidden: answered >= {id for id, _, _ in calls})
        return list(results or [])

    def _find(self, key: str, items: list[Any]) -> _ItemReply | None:
        """Returns the stored reply that these items are."""
        if key not in self._by_history:
            return None

        def fits(calls: list[CallSignature], reply: _ItemReply | None) -> bool:
            if reply is None:
                return same_calls(calls, _item_signatures(items))
            own = [_resolve(item, reply) for item in items]
            anchored = any(_same_item(each.anchor, item) for each in reply.insertions for item in own)
            return anchored and same_calls(calls, _item_signatures(own))

        return self._by_history.find(key, fits)


def input_items(body: Mapping[str, Any]) -> list[Any]:
    """Returns a request's `input` as a list of items."""
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])


def _end_of_reply(items: list[Any], start: int) -> int:
    """Returns the end of the model's reply that begins at `start`."""
    end = start
    while end < len(items) and _is_from_model(items[end]):
        end += 1
    return end


def _is_from_model(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    kind = str(item.get("type", "message"))
    return item.get("role") == "assistant" if kind == "message" else not kind.endswith("_output")


def _resolve(item: Any, reply: _ItemReply) -> Any:
    """Returns the visible item that an `item_reference` names; any other item unchanged."""
    if not isinstance(item, dict) or item.get("type") != "item_reference":
        return item
    return next((each for each in reply.visible if each.get("id") == item.get("id")), item)


def _same_item(visible: Item, sent_back: Any) -> bool:
    return isinstance(sent_back, dict) and canonical_entry(visible) == canonical_entry(sent_back)


def _insert(items: list[Any], reply: _ItemReply, taken: set[str | None]) -> list[Any]:
    result: list[Any] = []
    pending = list(reply.insertions)
    for item in items:
        own = _resolve(item, reply)
        fitting = [each for each in pending if _same_item(each.anchor, own)]
        for insertion in (each for each in fitting if each.before):
            result += _with_unused_ids(insertion.items, taken)
        result.append(item)
        for insertion in (each for each in fitting if not each.before):
            result += _with_unused_ids(insertion.items, taken)
        pending = [each for each in pending if each not in fitting]
    return result


def _with_unused_ids(items: list[Item], taken: set[str | None]) -> list[Item]:
    ids = {id: unused_id(id, taken) for id in dict.fromkeys(item["call_id"] for item in items)}
    return [{**item, "call_id": ids[item["call_id"]]} for item in items]


def awaits_answer(item: Any, items: Iterable[Any]) -> bool:
    """Returns whether the caller must answer an item: a call of its tools, or a request for approval.

    Unknown kinds count too: an item with a `call_id` is a call of the caller's tools, unless the upstream ran
    the tool itself and put the output among the `items` of the reply.
    """
    kind = str(item.get("type")) if isinstance(item, dict) else ""
    if kind == "function_call" or kind.endswith("_request"):
        return True
    call_id = item.get("call_id") if isinstance(item, dict) else None
    if not isinstance(call_id, str) or kind.endswith("_output"):
        return False
    outputs = [each for each in items if isinstance(each, dict) and str(each.get("type")).endswith("_output")]
    return all(each.get("call_id") != call_id for each in outputs)


def _item_signatures(items: list[Any]) -> list[CallSignature]:
    calls = [item for item in items if awaits_answer(item, items)]
    return [
        (
            item.get("call_id") or item.get("id"),
            item.get("name") or item.get("type"),
            canonical_arguments(item.get("arguments", item.get("input", item.get("action")))),
        )
        for item in calls
    ]
