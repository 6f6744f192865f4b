"""One streamed turn of a chat completion: passes its chunks on, or withholds them.

Text and reasoning pass at once. The pieces of a call wait until its name shows whether it is the rule tool's.
As soon as the model is known to consult, the turn's calls, finish reason and token counts are withheld. A
turn that does not consult is passed on byte for byte.
"""

from __future__ import annotations

from typing import Any

from agent.endpoint import StreamedReply, add_usage, parse_arguments, reasoning_text
from agent.gateway.exchange import Exchange
from agent.gateway.protocols.dialect import header_comments
from agent.gateway.wire import DONE, event_data, format_event, parse_chunk

Chunk = dict[str, Any]


class ChatTurn:
    """Receives the events of one turn, and returns the bytes to send to the caller.

    Args:
        exchange: the exchange that the turn belongs to.
        opening: the first chunk sent to the caller if this turn continues a reply; None otherwise.
    """

    def __init__(self, exchange: Exchange, *, opening: Chunk | None) -> None:
        self.consulting = False
        """Whether the turn calls the rule tool."""
        self.shown = False
        """Whether text, reasoning, a call or an end was sent to the caller."""
        self.text_shown = False
        """Whether text was sent to the caller."""
        self.finished = False
        """Whether the turn came to an end, by a finish reason or an error."""
        self.failed = False
        """Whether the upstream sent an error in the stream."""
        self.ended = False
        """Whether the stream ended."""
        self.opening = opening
        """The first chunk of the reply; None before it."""
        self._exchange = exchange
        self._conversation = exchange.conversation
        self._continues = opening is not None
        self._hold = exchange.settings.hold
        self._reply = StreamedReply(lambda kind, text: None)
        self._queue: list[tuple[bytes, Chunk]] = []
        self._sent_calls: set[int] = set()
        self._role_sent = self._continues
        self._odd_positions = False
        """Whether the upstream's positions of calls cannot be mixed with the gateway's."""
        self._usage_chunk: Chunk | None = None
        """The withheld chunk with token counts, if the upstream sent one."""

    @property
    def has_usage(self) -> bool:
        """Whether no token counts are outstanding."""
        options = self._exchange.request.body.get("stream_options")
        requested = isinstance(options, dict) and bool(options.get("include_usage"))
        return not requested or bool(self.reply().get("usage"))

    @property
    def calls_are_complete(self) -> bool:
        """Whether the arguments of all calls are JSON objects: some servers end a stream without a sign."""
        functions = [call.get("function") or {} for call in self._reply.calls.values()]
        return all(parse_arguments(str(each.get("arguments")))[1] is None for each in functions)

    def reply(self) -> dict[str, Any]:
        """Returns the turn as an unstreamed completion."""
        return self._reply.data()

    def feed(self, block: bytes) -> list[bytes]:
        """Takes one event."""
        if event_data(block).strip() == "[DONE]":
            self.finished = True
            return [] if self.consulting else [*self._release(), block]
        chunk = parse_chunk(block)
        if chunk is None:
            return self._enqueue(block, {}) if self._queue else [block]
        if chunk.get("error") and not chunk.get("choices"):
            self.failed = self.finished = self.shown = True
            return [*([] if self.consulting else self._release()), block]
        if self._continues:
            self._add(chunk)
            changed = self._continued(chunk)
            if changed is None:
                return []
            block, chunk = format_event(changed), changed
        else:
            self._odd_positions |= self._add(chunk)
            if self.opening is None or not self.opening.get("id"):  # Azure's first chunk has an empty id
                self.opening = chunk
        return self._route(block, chunk)

    def end(self) -> list[bytes]:
        """Ends the stream, and returns what is still withheld."""
        self.ended = True
        finished, self.finished = self.finished, True  # every name is complete now
        owners = self._owners_of_unsent_calls()
        self.finished = finished
        if "gateway" in owners and not self.consulting:
            return self._start_consulting()
        return [] if self.consulting else self._release()

    def closing(self, visible: dict[str, Any]) -> list[bytes]:
        """Returns the end of a reply whose last turn called the rule tool among others."""
        base = {k: v for k, v in (self.opening or {}).items() if k not in ("choices", "usage")}

        def chunk(delta: dict[str, Any], finish: str | None) -> bytes:
            return format_event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        pieces = [chunk({"tool_calls": [entry]}, None) for entry in self._unsent_calls()]
        pieces.append(chunk({}, "tool_calls" if visible.get("tool_calls") else "stop"))
        if self._usage_chunk is not None:
            usage = add_usage(self._exchange.turns.hidden_usage, self._usage_chunk["usage"])
            pieces.append(format_event({**base, "choices": [], "usage": usage}))
        return [*pieces, header_comments(self._exchange), DONE]

    def _unsent_calls(self) -> list[dict[str, Any]]:
        """The caller's calls that were not sent to it yet, complete and with their positions."""
        calls = self._reply.calls
        unsent = [i for i in sorted(calls) if i not in self._sent_calls and self._owner(i) != "gateway"]
        start = max(self._sent_calls, default=-1) + 1
        return [{"index": start + n, **calls[i]} for n, i in enumerate(unsent)]

    def _start_consulting(self, *more: tuple[bytes, Chunk]) -> list[bytes]:
        self.consulting = True
        queued, self._queue = self._queue, []
        return [piece for _, chunk in [*queued, *more] for piece in self._without_calls(chunk)]

    def _add(self, chunk: Chunk) -> bool:
        """Adds a chunk to the reply; returns whether calls lack their own positions, and now have them."""
        sent = [entry.get("index") for choice in _choices(chunk) for entry in _entries(choice)]
        self._reply.add(chunk)
        return sent != [entry["index"] for choice in _choices(chunk) for entry in _entries(choice)]

    def _route(self, block: bytes, chunk: Chunk) -> list[bytes]:
        """Passes a chunk on, queues it, or withholds the parts that belong to the gateway."""
        if self.consulting:
            return self._without_calls(chunk)
        finish = any(choice.get("finish_reason") is not None for choice in _choices(chunk))
        self.finished |= finish
        owners = self._owners_of_unsent_calls()
        if "gateway" in owners:
            return self._start_consulting((block, chunk))
        text = any(_has_text(choice) for choice in _choices(chunk))
        held = self._hold and (text or bool(self._queue) or bool(owners))
        if not finish and ("unknown" in owners or held or self._odd_positions):
            return self._enqueue(block, chunk)
        return [*self._release(), *self._send(block, chunk)]

    def _owners_of_unsent_calls(self) -> set[str]:
        return {self._owner(i) for i in self._reply.calls if i not in self._sent_calls}

    def _owner(self, index: int) -> str:
        """The owner of a call: `gateway`, `caller`, or `unknown` while its name is incomplete."""
        call = self._reply.calls[index]
        function = call.get("function", call.get("custom"))
        function = function if isinstance(function, dict) else {}
        name = function.get("name")
        name = name if isinstance(name, str) else ""
        # The name is complete when arguments, another call or the end have arrived.
        has_arguments = bool(function.get("arguments") or function.get("input"))
        if has_arguments or self.finished or any(i > index for i in self._reply.calls):
            return "gateway" if self._conversation.hides(name) else "caller"
        return "unknown" if self._conversation.may_become_hidden(name) else "caller"

    def _enqueue(self, block: bytes, chunk: Chunk) -> list[bytes]:
        self._queue.append((block, chunk))
        return []

    def _release(self) -> list[bytes]:
        queued, self._queue = self._queue, []
        return [piece for block, chunk in queued for piece in self._send(block, chunk)]

    def _send(self, block: bytes, chunk: Chunk) -> list[bytes]:
        for choice in _choices(chunk):
            self._role_sent |= "role" in (choice.get("delta") or {})
            self._sent_calls |= {entry["index"] for entry in _entries(choice)}
            self._note_shown(choice)
        return [block]

    def _note_shown(self, choice: Chunk) -> None:
        self.text_shown |= _has_text(choice)
        finished = choice.get("finish_reason") is not None
        self.shown |= finished or _has_text(choice) or bool(_entries(choice)) or _has_reasoning(choice)

    def _without_calls(self, chunk: Chunk) -> list[bytes]:
        """Returns what passes in a turn that consults: text, reasoning, pieces of calls sent in part."""
        if isinstance(chunk.get("usage"), dict):
            self._usage_chunk = chunk
        pieces = []
        for choice in _choices(chunk):
            self.finished |= choice.get("finish_reason") is not None
            delta = dict(choice.get("delta") or {})
            delta.pop("tool_calls", None)
            if self._role_sent:
                delta.pop("role", None)
            if self._hold:
                delta.pop("content", None)
            if entries := [entry for entry in _entries(choice) if entry["index"] in self._sent_calls]:
                delta["tool_calls"] = entries
            content = {key: value for key, value in delta.items() if value not in (None, "", [])}
            if content:
                self._role_sent |= "role" in content
                passed = {**choice, "delta": delta, "finish_reason": None}
                self._note_shown(passed)
                head = {key: value for key, value in chunk.items() if key != "usage"}
                pieces.append(format_event({**head, "choices": [passed]}))
        return pieces

    def _continued(self, chunk: Chunk) -> Chunk | None:
        """Returns a chunk as part of the earlier turns' reply, with their id; None if it adds nothing."""
        opening = self.opening or {}
        changed: Chunk = {**chunk, **{k: v for k, v in opening.items() if k in ("id", "created")}}
        if isinstance(chunk.get("usage"), dict):
            changed["usage"] = add_usage(self._exchange.turns.hidden_usage, chunk["usage"])
        choices = []
        for choice in _choices(chunk):
            delta = {k: v for k, v in (choice.get("delta") or {}).items() if k != "role"}
            has_content = any(value not in (None, "", []) for value in delta.values())
            if has_content or choice.get("finish_reason") is not None:
                choices.append({**choice, "delta": delta})
        if chunk.get("choices") and not choices and not changed.get("usage"):
            return None
        return {**changed, "choices": choices}


def _choices(chunk: Chunk) -> list[Chunk]:
    choices = chunk.get("choices")
    choices = choices if isinstance(choices, list) else []
    return [c for c in choices if isinstance(c, dict) and c.get("index", 0) == 0]


def _entries(choice: Chunk) -> list[dict[str, Any]]:
    delta = choice.get("delta")
    entries = delta.get("tool_calls") if isinstance(delta, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _has_text(choice: Chunk) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and bool(delta.get("content"))


def _has_reasoning(choice: Chunk) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and bool(reasoning_text(delta))
