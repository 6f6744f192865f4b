"""One request of a caller, from its first turn to the reply that it is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agent.desk import RuleDesk
from agent.echo import echoed
from agent.episode import Api, ErrorRecord, Message, Turn, digest_of
from agent.errors import EndpointError, RulesError
from agent.gateway.asked import Asked, with_tool
from agent.gateway.counters import Counters
from agent.gateway.half_turns import HalfTurns
from agent.gateway.settings import Settings
from agent.machine import Offer, now
from agent.rules_client import RulesClient
from agent.toolcall import read_reply
from agent.usage import added


@dataclass
class Exchange:
    """Asks, consults, asks again: what both forms of a reply, whole and streamed, have in common."""

    api: ClassVar[Api] = "chat"
    asked: Asked
    offer: Offer | None
    """The rule tool; None when it is not offered."""
    not_offered: str | None
    """Why it is not offered; None when it is."""
    rules: RulesClient | None
    settings: Settings
    half_turns: HalfTurns
    counters: Counters
    messages: list[Any] = field(default_factory=list)
    """The conversation as the model sees it: the caller's, with hidden turns."""
    turns: list[Turn] = field(default_factory=list)
    spent: dict[str, Any] | None = None
    """Token counts of the hidden turns; None when there were none, or they were not counted."""
    model: str | None = None
    """The model's name in the last reply."""
    error: ErrorRecord | None = None
    """Why the rules could not be consulted, or the upstream not asked."""

    def __post_init__(self) -> None:
        self.started_at, self.began = now(), time.monotonic()
        self._turn_at, self._turn_began = self.started_at, self.began
        self.desk = RuleDesk(self.rules, self.settings.most_consultations, self.settings.on_rules_error)
        self.offering = self.offer is not None
        given = self.asked.body.get("messages")
        self.messages = list(given) if isinstance(given, list) else []
        if self.offering:
            self.messages, restored = self.half_turns.restore(self.asked.caller, self.messages)
            self.counters.restored += restored
        self.given = len(self.messages)
        self.half_turn: list[Message] = []
        """The last reply and what answered our calls in it, when it called the caller's tools too."""
        self.recorded = False

    @property
    def tool_name(self) -> str | None:
        """Name of the rule tool, when it is offered."""
        return self.offer.name if self.offer else None

    @property
    def consulted(self) -> bool:
        """Whether the model called the rule tool."""
        return bool(self.desk.consultations)

    def begin_turn(self) -> None:
        """Note the time at which a request goes out."""
        self._turn_at, self._turn_began = now(), time.monotonic()

    def next_body(self) -> bytes:
        """The body of the next request to the upstream; begins a turn."""
        self.begin_turn()
        if self.offer is None:
            return self.asked.raw
        body = {**self.asked.body, "messages": self.messages}
        return json.dumps(with_tool(body, self.offer.tool) if self.offering else body).encode()

    async def take(self, message: Message, finish_reason: Any, usage: Any, model: Any) -> Message | None:
        """Take in a reply: what of it the caller is shown, or None when it consulted and nothing else.

        Raises:
            RulesError: when the rules cannot be consulted and the model is not to answer without them.
        """
        index = len(self.turns)
        self.note_turn(finish_reason, usage, model)
        if self.offer is None:
            return message
        entries = message.get("tool_calls")
        entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        ours = [entry for entry in entries if _name(entry) == self.offer.name]
        if not ours:
            return message
        theirs = [entry for entry in entries if _name(entry) != self.offer.name]
        shown = {key: value for key, value in message.items() if key != "tool_calls"}
        if theirs:
            shown["tool_calls"] = theirs
        if self.settings.hold:
            shown["content"] = None
        if not self.offering:
            return shown
        taken = {entry.get("id") for entry in theirs} | _ids(self.messages)
        read = read_reply(
            {"tool_calls": ours}, turn=index, offered=[], taken=[i for i in taken if i], text_mode=False
        )
        answers: dict[str, str] = {}
        if not self.consulted:
            self.counters.consulted += 1
        for call in read.calls:
            self.counters.consultations += 1
            answers[call.id] = await self.desk.answer(call, index)
            self.note_rules_error()
        mended = iter(read.message["tool_calls"])
        calls = [next(mended) if _name(entry) == self.offer.name else entry for entry in entries]
        whole = echoed({**message, "tool_calls": calls})
        results: list[Message] = [
            {"role": "tool", "tool_call_id": id, "content": text} for id, text in answers.items()
        ]
        if theirs:
            self.counters.mixed += 1
            self.half_turn = [whole, *results]
            self.half_turns.keep(self.asked.caller, self.messages, whole, answers)
            return shown
        self.spent = added(self.spent, usage if isinstance(usage, dict) else None)
        self.messages += [whole, *results]
        self.stop_offering_if_enough()
        return None

    def stop_offering_if_enough(self) -> None:
        """Ask without the rule tool from here on, when the model has consulted enough or repeats itself."""
        most = self.settings.most_consultations
        if self.desk.asked >= most or self.desk.most_repetitions > 1 or len(self.turns) > most + 1:
            self.offering = False

    def logged(self) -> list[Message]:
        """The conversation in the form of an episode's messages, without the reply that was shown last."""
        return [*(message for message in self.messages if isinstance(message, dict)), *self.half_turn]

    def rules_failed(self, error: RulesError) -> None:
        """Note that the rules could not be asked."""
        if self.error is None:
            self.counters.rules_errors += 1
        self.error = ErrorRecord(
            boundary=error.boundary, type=error.type, message=str(error), setup=error.setup
        )

    def upstream_failed(self, type: str, message: str) -> None:
        """Note that the upstream gave no usable reply."""
        self.counters.upstream_errors += 1
        self.error = ErrorRecord(boundary=EndpointError.boundary, type=type, message=message)

    def headers(self, *, final: bool) -> dict[str, str]:
        """What the caller's response says of the rules; `final` when the model can consult no more."""
        state = "yes" if self.consulted else "no" if final else "pending"
        said = {"x-ascl-consulted": "not-offered" if self.offer is None else state}
        if self.not_offered:
            said["x-ascl-not-offered"] = self.not_offered
        ids = list(dict.fromkeys(rule.id for c in self.desk.consultations for rule in c.rules))
        if ids:
            said["x-ascl-rules"] = ", ".join(ids)
        digests = [c.digest for c in self.desk.consultations if c.digest]
        if digests or self.offer:
            said["x-ascl-rulebook"] = digests[-1] if digests else str(self.offer.digest if self.offer else "")
        if self.error is not None and self.error.boundary == RulesError.boundary:
            said["x-ascl-rules-error"] = self.error.type
        return said

    def note_turn(self, finish_reason: Any, usage: Any, model: Any) -> None:
        """Record that the model answered."""
        self.model = model if isinstance(model, str) else self.model
        self.turns.append(
            Turn(
                index=len(self.turns),
                request_digest=digest_of([self.asked.body.get("model"), self.messages]),
                finish_reason=finish_reason if isinstance(finish_reason, str) else None,
                usage=usage if isinstance(usage, dict) else None,
                started_at=self._turn_at,
                seconds=time.monotonic() - self._turn_began,
            )
        )

    def note_rules_error(self) -> None:
        """Record that the rules could not be asked, if that is so."""
        failed = self.desk.last_failure
        if failed is not None and self.error is None:
            self.rules_failed(failed)


def extra_headers(given: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """Headers of the upstream's with ours."""
    return {**{name.lower(): value for name, value in given.items()}, **said}


def _name(entry: dict[str, Any]) -> Any:
    function = entry.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _ids(messages: list[Any]) -> set[Any]:
    calls = [m.get("tool_calls") for m in messages if isinstance(m, dict)]
    return {
        e.get("id") for entries in calls if isinstance(entries, list) for e in entries if isinstance(e, dict)
    }
