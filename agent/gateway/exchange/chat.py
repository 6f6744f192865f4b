"""One request of a caller, from its first turn to the reply that it is shown."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from agent.endpoint import REASONING_FIELDS, add_usage, parse_reply
from agent.episode import Api, ErrorRecord, Message, Turn, digest_of, now, to_request_message
from agent.errors import EndpointError, RulesError
from agent.gateway.exchange.mixed_calls import MixedCallStore
from agent.gateway.metrics import GatewayMetrics
from agent.gateway.settings import Settings
from agent.gateway.wire import CallerRequest, with_tool
from agent.tools import RULES_UNREACHABLE, ConsultResult, RulesClient, RuleTool, ToolOffer

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """What stood fast after the last hidden turn."""

    conversation: list[Any]
    turns: list[Turn]
    desk: RuleTool
    spent: dict[str, Any] | None
    offering: bool
    thoughts: dict[str, str]


class OnceRules:
    """The rule service, asked once for the same thing within one request and its retries."""

    def __init__(self, rules: RulesClient | None, answers: dict[str, ConsultResult]) -> None:
        self._rules = rules
        self.answers = answers

    async def consult(self, arguments: dict[str, Any]) -> ConsultResult:
        """What the service answers; a failure is not kept."""
        assert self._rules is not None
        key = digest_of(arguments)
        if key not in self.answers:
            self.answers[key] = await self._rules.consult(arguments)
        return self.answers[key]


@dataclass
class Exchange:
    """Asks, consults, asks again: what both forms of a reply, whole and streamed, have in common."""

    api: ClassVar[Api] = "chat"
    asked: CallerRequest
    offer: ToolOffer | None
    """The rule tool; None when it is not offered."""
    not_offered: str | None
    """Why it is not offered; None when it is."""
    rules: RulesClient | None
    settings: Settings
    half_turns: MixedCallStore
    counters: GatewayMetrics
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
        self.once = OnceRules(self.rules, {})
        self.desk = RuleTool(self.once, self.settings.most_consultations, self.settings.on_rules_error)
        self.offering = self.offer is not None
        given = self.asked.body.get("messages")
        self.messages = list(given) if isinstance(given, list) else []
        if self.offering:
            self.messages, restored = self.half_turns.restore(self.asked.caller, self.messages)
            self.counters.restored += restored
        self.thoughts: dict[str, str] = {}
        """Thoughts of the hidden turns, by the field that they came in."""
        self.progress: Progress | None = None
        self.working: asyncio.Task[Any] | None = None
        """The consultation under way, which is carried out even if the caller leaves."""
        self.half_turn: list[Message] = []
        """The last reply and what answered our calls in it, when it called the caller's tools too."""
        self.recorded = False

    @property
    def tool_name(self) -> str | None:
        """Name of the rule tool, when it is offered."""
        return self.offer.name if self.offer else None

    @property
    def conversation(self) -> list[Any]:
        """What the next request to the model holds."""
        return self.messages

    @conversation.setter
    def conversation(self, given: list[Any]) -> None:
        self.messages = given

    @property
    def has_found_out(self) -> bool:
        """Whether a later try of the same request would have to do something a second time."""
        return self.progress is not None or self.working is not None or bool(self.once.answers)

    async def go_on_from(self, earlier: Exchange) -> None:
        """Take over the hidden turns and consultations of an earlier try of the same request."""
        if earlier.working is not None:
            await asyncio.wait({earlier.working})
        self.once.answers = earlier.once.answers
        if (done := earlier.progress) is None:
            return
        self.conversation = list(done.conversation)
        self.turns = list(done.turns)
        self.desk = replace(done.desk.copy(), rules=self.once)
        self.spent, self.offering, self.thoughts = done.spent, done.offering, dict(done.thoughts)
        self.progress = done

    async def carried_out(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that is done to its end even when the caller leaves meanwhile."""
        task = self.working = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():
                self.working = None

    def keep_progress(self) -> None:
        """Note that a hidden turn and its consultations are done."""
        self.progress = Progress(
            list(self.conversation),
            list(self.turns),
            self.desk.copy(),
            self.spent,
            self.offering,
            dict(self.thoughts),
        )

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
        if self.offer is not None and self.offering and _calls(message, self.offer.name):
            return await self.carried_out(self._take(message, finish_reason, usage, model))
        return await self._take(message, finish_reason, usage, model)

    async def _take(self, message: Message, finish_reason: Any, usage: Any, model: Any) -> Message | None:
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
        read = parse_reply(
            {"tool_calls": ours}, turn=index, offered=[], taken=[i for i in taken if i], text_mode=False
        )
        mended = iter(read.message["tool_calls"])
        calls = [next(mended) if _name(entry) == self.offer.name else entry for entry in entries]
        whole = to_request_message({**message, "tool_calls": calls})
        answers: dict[str, str] = {}
        if not self.consulted:
            self.counters.consulted += 1
        try:
            for call in read.calls:
                self.counters.consultations += 1
                answers[call.id] = RULES_UNREACHABLE  # unless it is answered
                answers[call.id] = await self.desk.answer(call, index)
                self.note_rules_error()
        except RulesError:
            self.messages += [whole, *_results(answers)]
            raise
        results = _results(answers)
        if theirs:
            self.counters.mixed += 1
            self.half_turn = [whole, *results]
            self.half_turns.keep(self.asked.caller, self.messages, whole, answers)
            return shown
        self.spent = add_usage(self.spent, usage if isinstance(usage, dict) else None)
        self.messages += [whole, *results]
        for name in REASONING_FIELDS:
            if isinstance(text := message.get(name), str) and text:
                self.thoughts[name] = f"{self.thoughts[name]}\n\n{text}" if name in self.thoughts else text
        self.stop_offering_if_enough()
        self.keep_progress()
        return None

    def stop_offering_if_enough(self) -> None:
        """Ask without the rule tool from here on, when the model has consulted enough or repeats itself."""
        most = self.settings.most_consultations
        if self.desk.queries >= most or self.desk.max_repetitions > 1 or len(self.turns) > most + 1:
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


def _results(answers: Mapping[str, str]) -> list[Message]:
    return [{"role": "tool", "tool_call_id": id, "content": text} for id, text in answers.items()]


def _calls(message: Message, name: str) -> bool:
    entries = message.get("tool_calls")
    return isinstance(entries, list) and any(_name(e) == name for e in entries if isinstance(e, dict))


def _name(entry: dict[str, Any]) -> Any:
    function = entry.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _ids(messages: list[Any]) -> set[Any]:
    calls = [m.get("tool_calls") for m in messages if isinstance(m, dict)]
    return {
        e.get("id") for entries in calls if isinstance(entries, list) for e in entries if isinstance(e, dict)
    }
