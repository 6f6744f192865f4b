"""An upstream that plays scripted conversations with the oddities of a `Behaviour`.

A marker in the texts identifies each conversation. The simulator checks every request that it receives and
records what it sent, so that a test can compare both sides of a gateway. `reply` is independent of the
transport: the tests of the table put it behind a real HTTP server, and the fuzzer calls it in-process.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.endpoints.upstream_behaviours import Behaviour

RULE_TOOL = "consult_safety_rules"
_NUMBERS = itertools.count(1)
MARKER = re.compile(r"marker-\d+-")
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Call:
    """A tool call of the model. Calls of the rule tool have the situation as their argument."""

    name: str
    arguments: dict[str, Any]

    @property
    def is_rule_call(self) -> bool:
        return self.name == RULE_TOOL


@dataclass(frozen=True)
class Turn:
    """The model's reply to one request."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    status: int = 200
    """Another status makes the reply an error, which the application sees unchanged."""

    @property
    def shown_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.is_rule_call]

    @property
    def consults(self) -> bool:
        return any(call.is_rule_call for call in self.calls)

    @property
    def hidden(self) -> bool:
        """Whether the turn only consults, so that the application does not see it."""
        return self.consults and not self.shown_calls


@dataclass(frozen=True)
class Sent:
    """One reply of the simulator."""

    status: int
    headers: Headers
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclass
class Conversation:
    """A scripted conversation: turns of the model, and what the simulator saw and sent of it."""

    marker: str
    turns: Sequence[Turn]
    behaviour: Behaviour
    played: list[Turn] = field(default_factory=list)
    """The turns so far, without calls of tools that a request did not offer."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    replies: list[Sent] = field(default_factory=list)
    refusals: int = 0
    """Requests that the server refused for its own reasons."""


class Simulator:
    """Plays every conversation that was added; `faults` collects broken invariants of its requests."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.faults: list[str] = []

    def add(self, conversation: Conversation) -> None:
        self.conversations[conversation.marker] = conversation

    def reply(self, path: str, raw: bytes) -> Sent:
        """Returns the reply to one request.

        Args:
            path: `/v1/chat/completions` or `/v1/responses`.
            raw: the request's body; all markers in it must be of one conversation.
        """
        markers = set(MARKER.findall(raw.decode("utf-8", "replace")))
        if len(markers) != 1:
            self.faults.append(
                f"a request holds the texts of {len(markers)} conversations: {sorted(markers)}"
            )
            return self._error(400, "which conversation is this?", PLAIN_HEADERS)
        conversation = self.conversations[markers.pop()]
        body = json.loads(raw)
        conversation.requests.append(body)
        chat = path.endswith("/chat/completions")
        self.faults += [f"{conversation.marker}: {fault}" for fault in _malformed(body, chat)]
        refusal = refusal_of(body, conversation.behaviour, chat)
        if refusal is not None:
            conversation.refusals += 1
            return self._error(refusal[0], refusal[1], self._headers(conversation, "application/json"))
        sent = self._play(conversation, body, chat)
        conversation.replies.append(sent)
        return sent

    def _play(self, conversation: Conversation, body: dict[str, Any], chat: bool) -> Sent:
        turn = conversation.turns[min(len(conversation.played), len(conversation.turns) - 1)]
        if not _offers_rules(body, chat):  # a model can only call what it was offered
            turn = replace(turn, calls=tuple(turn.shown_calls))
        conversation.played.append(turn)
        if turn.status != 200:
            return self._error(turn.status, "try later", [*PLAIN_HEADERS, (b"retry-after", b"7")])
        behaviour = conversation.behaviour
        calls = self._calls(conversation, turn)
        if chat:
            whole = _completion(conversation, turn, calls)
            events = _chat_events(whole, behaviour)
        else:
            whole = _response(conversation, turn, calls) | {"instructions": body.get("instructions")}
            events = _response_events(whole, behaviour)
        if not body.get("stream") or behaviour.ignores_stream:
            text = json.dumps(whole).encode()
            return Sent(200, self._headers(conversation, "application/json"), [text])
        return Sent(200, self._headers(conversation, "text/event-stream"), _pieces(events, behaviour))

    def _calls(self, conversation: Conversation, turn: Turn) -> list[dict[str, Any]]:
        """The calls of a turn as id (None leaves it out), name and arguments."""
        behaviour, made, first = conversation.behaviour, [], 0
        for index, call in enumerate(turn.calls):
            number = next(_NUMBERS)
            first = number if index == 0 else first
            name = behaviour.rename.format(call.name) if call.is_rule_call else call.name
            id: str | None = {
                "unique": f"call_{number}",
                "numbered": f"functions.{call.name}:{index}",
                "zero": f"call_{index}",
                "absent": None,
                "empty": "",
                "null": None,
                "same": f"call_{first}",
            }[behaviour.ids]
            made.append({"id": id, "name": name, "arguments": json.dumps(call.arguments)})
        return made

    def _headers(self, conversation: Conversation, kind: str) -> Headers:
        headers = [(b"content-type", kind.encode()), (b"x-request-id", conversation.marker.encode())]
        if conversation.behaviour.odd_headers:
            headers += [(b"x-server", "Zürich".encode()), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        return headers

    def _error(self, status: int, message: str, headers: Headers) -> Sent:
        body = json.dumps({"error": {"message": message, "type": "upstream_says", "code": status}})
        return Sent(status, headers, [body.encode()])


PLAIN_HEADERS: Headers = [(b"content-type", b"application/json")]


def _offers_rules(body: dict[str, Any], chat: bool) -> bool:
    tools = body.get("tools") or []
    names = [(tool.get("function") or {}).get("name") if chat else tool.get("name") for tool in tools]
    return RULE_TOOL in names and body.get("tool_choice") != "none"


def _history(body: dict[str, Any], chat: bool) -> list[dict[str, Any]]:
    history = body.get("messages" if chat else "input")
    return [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def _calls_in(body: dict[str, Any], chat: bool) -> tuple[list[tuple[Any, str]], list[Any]]:
    """Returns the calls in a request as (id, name), and the ids of the results."""
    history = _history(body, chat)
    if chat:
        calls = [
            (call.get("id"), call["function"]["name"]) for m in history for call in m.get("tool_calls") or []
        ]
        return calls, [m.get("tool_call_id") for m in history if m.get("role") == "tool"]
    calls = [(item.get("call_id"), item["name"]) for item in history if item.get("type") == "function_call"]
    return calls, [item.get("call_id") for item in history if item.get("type") == "function_call_output"]


def _malformed(body: dict[str, Any], chat: bool) -> list[str]:
    """Returns faults that no server accepts: unmatched calls or results, and rule calls that share an id."""
    calls, results = _calls_in(body, chat)
    faults = []
    if sorted(str(id) for id, _ in calls) != sorted(map(str, results)):
        faults.append(f"calls {calls} do not match results {results}")
    rule_calls = [id for id, name in calls if name == RULE_TOOL]
    shared = [id for id in rule_calls if [each for each, _ in calls].count(id) > 1]
    if shared:
        faults.append(f"calls of the rule tool share the ids {shared} with other calls")
    return faults


def refusal_of(body: dict[str, Any], behaviour: Behaviour, chat: bool) -> tuple[int, str] | None:
    """Status and message with which a server refuses a request; None when it accepts it."""
    calls, _ = _calls_in(body, chat)
    if behaviour.forgets_reasoning and body.get("store") is False and not chat:
        for item in _history(body, chat):
            if item.get("type") == "reasoning" and not item.get("encrypted_content"):
                return 404, f"Item with id '{item.get('id')}' not found"
    if behaviour.wants_tools_with_calls and calls and not body.get("tools"):
        return 400, "the toolConfig field must be defined when using toolUse"
    if behaviour.forbids_format_with_tools and body.get("response_format") and body.get("tools"):
        return 400, "Function calling with a response mime type 'application/json' is unsupported"
    return None


def _completion(conversation: Conversation, turn: Turn, calls: list[dict[str, Any]]) -> dict[str, Any]:
    behaviour = conversation.behaviour
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    if behaviour.thoughts:
        message[behaviour.thoughts] = f"{conversation.marker} thinks"
    if calls:
        if behaviour.content == "absent":
            del message["content"]
        elif behaviour.content != "text":
            message["content"] = None if behaviour.content == "null" else ""
        message["tool_calls"] = [_chat_call(call, behaviour) for call in calls]
    finish: Any = "stop"
    if calls:
        finish = {"tool_calls": "tool_calls", "stop": "stop", "null": None, "absent": None}[behaviour.finish]
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
    if behaviour.finish == "absent":
        del choice["finish_reason"]
    whole: dict[str, Any] = {
        "id": f"chatcmpl-{conversation.marker}{next(_NUMBERS)}",
        "object": "chat.completion",
        "created": 1,
        "model": "simulated",
        "choices": [choice],
    }
    if behaviour.usage != "never":
        whole["usage"] = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    return whole


def _chat_call(call: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    entry = {
        "id": call["id"],
        "type": "function",
        "function": {"name": call["name"], "arguments": call["arguments"]},
    }
    if behaviour.ids == "absent":
        del entry["id"]
    return entry


def _chat_events(whole: dict[str, Any], behaviour: Behaviour) -> list[dict[str, Any] | str]:
    """The chunks of a completion; a text stands for an event that holds it."""
    head = {k: v for k, v in whole.items() if k not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    choice = whole["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"content": ""}]
    for name in ("reasoning_content", "reasoning", "content"):
        text = message.get(name)
        deltas += [{name: text[i : i + 7]} for i in range(0, len(text), 7)] if text else []
    deltas += _call_deltas(message.get("tool_calls") or [], behaviour)
    if behaviour.role == "every":
        deltas = [{"role": "assistant", **delta} for delta in deltas]
    elif behaviour.role == "first":
        deltas[0] = {"role": "assistant", **deltas[0]}
    chunks = [{**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    if behaviour.finish != "absent":
        if not behaviour.finish_with_last_delta:
            chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": None}]})
        chunks[-1]["choices"][0]["finish_reason"] = choice.get("finish_reason")
    if behaviour.azure_head:
        chunks.insert(
            0, {**head, "id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []}
        )
    if behaviour.usage == "every":
        chunks = [{**chunk, "usage": whole["usage"]} for chunk in chunks]
    elif behaviour.usage == "finish":
        chunks[-1]["usage"] = whole["usage"]
    elif behaviour.usage == "last":
        chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return [*chunks, *(["[DONE]"] if behaviour.done else [])]


def _call_deltas(calls: list[dict[str, Any]], behaviour: Behaviour) -> list[dict[str, Any]]:
    lines: list[list[dict[str, Any]]] = []
    for index, entry in enumerate(calls):
        text = entry["function"]["arguments"]
        size = behaviour.arguments_size or len(text)
        place = {"right": {"index": index}, "zero": {"index": 0}, "absent": {}, "gaps": {"index": 3 * index}}
        at = place[behaviour.positions]
        first = {**at, **entry, "function": {**entry["function"], "arguments": ""}}
        if not behaviour.arguments_size:
            lines.append([{**first, "function": entry["function"]}])
            continue
        fragments = [{"arguments": text[i : i + size]} for i in range(0, len(text), size)]
        repeated = first if behaviour.repeats_id else at
        name = {"name": entry["function"]["name"]} if behaviour.repeats_id else {}
        lines.append([first, *({**repeated, "function": {**name, **each}} for each in fragments)])
    if behaviour.interleaved and behaviour.positions == "right":
        longest = max(map(len, lines), default=0)
        flat = [line[i] for i in range(longest) for line in lines if i < len(line)]
    else:
        flat = [fragment for line in lines for fragment in line]
    return [{"tool_calls": [fragment]} for fragment in flat]


def _response(conversation: Conversation, turn: Turn, calls: list[dict[str, Any]]) -> dict[str, Any]:
    behaviour, stem = conversation.behaviour, f"{conversation.marker}{next(_NUMBERS)}"
    output: list[dict[str, Any]] = []
    if behaviour.reasoning:
        summary = [{"type": "summary_text", "text": f"{conversation.marker} thinks"}]
        sealed = {"encrypted_content": "sealed"} if behaviour.reasoning == "encrypted" else {}
        output.append({"type": "reasoning", "id": f"rs_{stem}", "summary": summary, **sealed})
    if turn.text and (not calls or behaviour.content == "text"):
        part = {"type": "output_text", "text": turn.text, "annotations": []}
        message = {"type": "message", "id": f"msg_{stem}", "role": "assistant", "status": "completed"}
        output.append({**message, "content": [part]})
    for index, call in enumerate(calls):
        item = {
            "type": "function_call",
            "id": f"fc_{stem}_{index}",
            "call_id": call["id"],
            "name": call["name"],
        }
        output.append({**item, "arguments": call["arguments"], "status": "completed"})
    if not behaviour.item_ids:
        output = [{k: v for k, v in item.items() if k != "id"} for item in output]
    return {
        "id": f"resp_{stem}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "simulated",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25},
    }


def _response_events(whole: dict[str, Any], behaviour: Behaviour) -> list[dict[str, Any] | str]:
    initial = {**whole, "output": [], "status": "in_progress", "usage": None}
    events: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": initial} for name in ("created", "in_progress")
    ]
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, **({"item_id": item["id"]} if "id" in item else {})}
        empty = {**item, "status": "in_progress"}
        empty |= {"content": []} if item["type"] == "message" else {}
        empty |= {"arguments": ""} if item["type"] == "function_call" else {}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        if behaviour.deltas:
            events += [{**place, **event} for event in _item_deltas(item, behaviour)]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    final = dict(whole)
    if behaviour.output == "empty":
        final["output"] = []
    elif behaviour.output == "absent":
        del final["output"]
    events.append({"type": "response.completed", "response": final})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _item_deltas(item: dict[str, Any], behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    if item["type"] == "message":
        part = item["content"][0]
        yield {"type": "response.content_part.added", "content_index": 0, "part": {**part, "text": ""}}
        for i in range(0, len(part["text"]), 7):
            piece = part["text"][i : i + 7]
            yield {"type": "response.output_text.delta", "content_index": 0, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", "content_index": 0, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", "content_index": 0, "part": part}
    elif item["type"] == "function_call":
        text, name = item["arguments"], "response.function_call_arguments"
        size = behaviour.arguments_size or len(text)
        for i in range(0, len(text), size):
            yield {"type": f"{name}.delta", "delta": text[i : i + size]}
        yield {"type": f"{name}.done", "arguments": text, "name": item["name"]}


def _pieces(events: list[dict[str, Any] | str], behaviour: Behaviour) -> list[bytes]:
    end = "\r\n" if behaviour.crlf else "\n"
    texts = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event)
        name = f"event: {event['type']}{end}" if isinstance(event, dict) and "type" in event else ""
        texts.append(f"{name}data: {data}{end}{end}".encode())
    if behaviour.comments:
        comment = f": PROCESSING{end}{end}".encode()
        texts = [comment, *(piece for text in texts for piece in (text, comment))][:-1]
    if behaviour.split == 0:
        return texts
    whole = b"".join(texts)
    size = len(whole) if behaviour.split < 0 else behaviour.split
    return [whole[i : i + size] for i in range(0, len(whole), size)]
