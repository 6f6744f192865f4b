"""One streamed turn: what of it passes at once, what is withheld until it is known whose call it is.

Text and thoughts pass as they come. A call's pieces wait until its name tells whether it is the rule tool's.
Once the model is known to consult, the turn's calls, finish and token counts stay here; a turn without such a
call passes byte for byte.
"""

from __future__ import annotations

from typing import Any

from agent.endpoint import StreamedReply, add_usage, reasoning_text
from agent.gateway.wire import CallerRequest, event_data, format_event, parse_chunk

Chunk = dict[str, Any]


class StreamedTurn:
    """Feed it the events of one turn; it returns the bytes that the caller is sent.

    Args:
        ours: name of the rule tool; None when it was not offered.
        opening: the first chunk that the caller was sent, when this turn continues a reply; None otherwise.
        spent: token counts of the hidden turns before.
        hold: whether text waits until the turn's end.
    """

    def __init__(
        self, ours: str | None, *, opening: Chunk | None, spent: dict[str, Any] | None, hold: bool
    ) -> None:
        self.consulting = False
        """Whether this turn calls the rule tool."""
        self.shown = False
        """Whether the caller was sent text, a thought, a call or an end."""
        self.text_shown = False
        """Whether the caller was sent text."""
        self.finished = False
        """Whether the turn came to an end, by a finish reason or an error."""
        self.failed = False
        """Whether the upstream sent an error in the stream."""
        self.opening = opening
        self.usage_event: Chunk | None = None
        """The withheld chunk with token counts, where the upstream sent one."""
        self._ours = ours
        self._continues = opening is not None
        self._spent = spent
        self._hold = hold
        self._reply = StreamedReply(lambda kind, text: None)
        self._queue: list[tuple[bytes, Chunk]] = []
        self._passed: set[int] = set()
        self._role_sent = self._continues

    @property
    def waiting(self) -> bool:
        """Whether something is withheld, so that the caller hears nothing."""
        return self.consulting or self._continues or bool(self._queue)

    def is_counted(self, asked: CallerRequest) -> bool:
        """Whether no token counts are still to come."""
        options = asked.body.get("stream_options")
        wanted = isinstance(options, dict) and bool(options.get("include_usage"))
        return not wanted or bool(self.data().get("usage"))

    def data(self) -> dict[str, Any]:
        """The turn as an unstreamed completion."""
        return self._reply.data()

    def unsent_calls(self) -> list[dict[str, Any]]:
        """The caller's calls that it was not sent yet, whole and with their positions."""
        calls = self._reply.calls
        rest = [i for i in sorted(calls) if i not in self._passed and self._side(i) != "ours"]
        start = max(self._passed, default=-1) + 1
        return [{"index": start + n, **calls[i]} for n, i in enumerate(rest)]

    def feed(self, block: bytes) -> list[bytes]:
        """Take in one event."""
        if event_data(block).strip() == "[DONE]":
            self.finished = True
            return [] if self.consulting else [*self._released(), block]
        chunk = parse_chunk(block)
        if chunk is None:
            return [block] if not self._queue else self._queued(block, {})
        if chunk.get("error") and not chunk.get("choices"):
            self.failed = self.finished = self.shown = True
            return [*([] if self.consulting else self._released()), block]
        if self._continues:
            changed = self._continued(chunk)
            self._take(chunk)
            if changed is None:
                return []
            block, chunk = format_event(changed), changed
        else:
            self._take(chunk)
            self.opening = self.opening or chunk
        return self._pass(block, chunk)

    def end(self) -> list[bytes]:
        """What is still withheld when the stream ends."""
        finished, self.finished = self.finished, True  # no name grows any more
        sides = {self._side(i) for i in self._reply.calls if i not in self._passed}
        self.finished = finished
        if "ours" in sides and not self.consulting:
            return self._begin_consulting()
        return [] if self.consulting else self._released()

    def _begin_consulting(self, *more: tuple[bytes, Chunk]) -> list[bytes]:
        self.consulting = True
        queued, self._queue = self._queue, []
        return [piece for _, chunk in [*queued, *more] for piece in self._around(chunk)]

    def _take(self, chunk: Chunk) -> None:
        for choice in _choices(chunk):
            entries = _entries(choice)
            for position, entry in enumerate(entries):
                if not isinstance(entry.get("index"), int):
                    entry["index"] = len(self._reply.calls) + position
        self._reply.add(chunk)

    def _pass(self, block: bytes, chunk: Chunk) -> list[bytes]:
        if self.consulting:
            return self._around(chunk)
        finish = any(choice.get("finish_reason") is not None for choice in _choices(chunk))
        self.finished |= finish
        sides = {self._side(i) for i in self._reply.calls if i not in self._passed}
        if "ours" in sides:
            return self._begin_consulting((block, chunk))
        text = any(_text(choice) for choice in _choices(chunk))
        held = self._hold and (text or bool(self._queue) or bool(sides))
        if not finish and ("open" in sides or held):
            return self._queued(block, chunk)
        return [*self._released(), *self._sent(block, chunk)]

    def _side(self, index: int) -> str:
        """Whose a call is: `ours`, `theirs`, or `open` while its name may still become ours."""
        function = self._reply.calls[index].get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if self._ours is None:
            return "theirs"
        name = name if isinstance(name, str) else ""
        if name == self._ours:
            # The name is whole when arguments, another call or the end have come.
            begun = isinstance(function, dict) and bool(function.get("arguments"))
            return "ours" if begun or self.finished or any(i > index for i in self._reply.calls) else "open"
        return "open" if self._ours.startswith(name) else "theirs"

    def _queued(self, block: bytes, chunk: Chunk) -> list[bytes]:
        self._queue.append((block, chunk))
        return []

    def _released(self) -> list[bytes]:
        queued, self._queue = self._queue, []
        return [piece for block, chunk in queued for piece in self._sent(block, chunk)]

    def _sent(self, block: bytes, chunk: Chunk) -> list[bytes]:
        for choice in _choices(chunk):
            self._role_sent |= "role" in (choice.get("delta") or {})
            self._passed |= {entry["index"] for entry in _entries(choice)}
            self._note_shown(choice)
        return [block]

    def _note_shown(self, choice: Chunk) -> None:
        self.text_shown |= _text(choice)
        ended = choice.get("finish_reason") is not None
        self.shown |= ended or _text(choice) or bool(_entries(choice)) or bool(_thought(choice))

    def _around(self, chunk: Chunk) -> list[bytes]:
        """What of a chunk passes in a turn that consults: text, thoughts, pieces of calls begun before."""
        if isinstance(chunk.get("usage"), dict):
            self.usage_event = chunk
        pieces = []
        for choice in _choices(chunk):
            self.finished |= choice.get("finish_reason") is not None
            delta = dict(choice.get("delta") or {})
            delta.pop("tool_calls", None)
            if self._role_sent:
                delta.pop("role", None)
            if self._hold:
                delta.pop("content", None)
            if entries := [entry for entry in _entries(choice) if entry["index"] in self._passed]:
                delta["tool_calls"] = entries
            said = {key: value for key, value in delta.items() if value not in (None, "", [])}
            if said:
                self._role_sent |= "role" in said
                passed = {**choice, "delta": delta, "finish_reason": None}
                self._note_shown(passed)
                head = {key: value for key, value in chunk.items() if key != "usage"}
                pieces.append(format_event({**head, "choices": [passed]}))
        return pieces

    def _continued(self, chunk: Chunk) -> Chunk | None:
        """A later turn's chunk as part of the same reply: one id, one role, all tokens; None when empty."""
        opening = self.opening or {}
        changed: Chunk = {**chunk, **{k: v for k, v in opening.items() if k in ("id", "created")}}
        if isinstance(chunk.get("usage"), dict):
            changed["usage"] = add_usage(self._spent, chunk["usage"])
        choices = []
        for choice in _choices(chunk):
            delta = {k: v for k, v in (choice.get("delta") or {}).items() if k != "role"}
            if (
                any(v not in (None, "", []) for v in delta.values())
                or choice.get("finish_reason") is not None
            ):
                choices.append({**choice, "delta": delta})
        if chunk.get("choices") and not choices and not changed.get("usage"):
            return None
        return {**changed, "choices": choices}


def _choices(chunk: Chunk) -> list[Chunk]:
    choices = chunk.get("choices")
    found = choices if isinstance(choices, list) else []
    return [c for c in found if isinstance(c, dict) and c.get("index", 0) == 0]


def _entries(choice: Chunk) -> list[dict[str, Any]]:
    delta = choice.get("delta")
    entries = delta.get("tool_calls") if isinstance(delta, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _text(choice: Chunk) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and bool(delta.get("content"))


def _thought(choice: Chunk) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and bool(reasoning_text(delta))
