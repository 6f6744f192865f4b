"""One episode as a state machine: ask -> (tool calls -> consult -> ask)* -> answer | refused | limit | error.

The model decides whether to consult; nothing is injected.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal

from agent.endpoint import ParsedReply, ToolCall, parse_reply, tool_messages
from agent.episode import (
    Episode,
    ErrorRecord,
    Event,
    Listener,
    Message,
    Mode,
    ModeMethod,
    RecordedReplies,
    RecordedTurn,
    StopReason,
    Turn,
    call_ids,
    digest_of,
    now,
    text_digest,
)
from agent.errors import AgentError, RulesError
from agent.rollout.forced_modes import agent_written_call, redraw_sampling
from agent.tools import REFUSAL_WITHOUT_RULES, RULES_UNREACHABLE, RuleTool, ToolOffer

if TYPE_CHECKING:
    from agent.rollout.agent import Agent

_OVER = "Error: this conversation ends here, because its limit is reached."
_MOST_REPETITIONS = 2


class _Step(Enum):
    ASK = auto()
    CONSULT = auto()
    DONE = auto()


@dataclass
class EpisodeRun:
    """One episode in the making."""

    agent: Agent
    prompt: str
    prompt_id: str
    kind: str | None
    sample_index: int
    sampling: dict[str, Any]
    memory: RecordedReplies
    stream: bool
    tell: Listener
    force: Mode | None = None
    offer: ToolOffer | None = None
    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)
    model_returned: str | None = None
    effective: dict[str, Any] | None = None
    stop: StopReason = "error"
    error: ErrorRecord | None = None
    method: ModeMethod | None = None
    began: float = 0.0
    """On the monotonic clock, seconds."""

    def __post_init__(self) -> None:
        agent = self.agent
        limit = agent.limits.consultations
        self.desk = RuleTool(agent.rules, limit, agent.on_rules_error, self.memory, self.tell)

    async def episode(self, history: list[Message]) -> Episode:
        started_at, self.began = now(), time.monotonic()
        self.messages = [
            *([{"role": "system", "content": self.agent.system}] if self.agent.system else []),
            *history,
            {"role": "user", "content": self.prompt},
        ]
        self.call_ids = set(call_ids(history))
        try:
            async with asyncio.timeout(self.agent.limits.seconds) as deadline:
                step = await self._begin()
                while step is not _Step.DONE:
                    step = await (self._ask() if step is _Step.ASK else self._consult())
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                self._close(_OVER)
                self.stop = "limit"
            else:
                self._close(f"Error: {error}")
                self.stop, self.error = "error", _record(error)
        return self._recorded(started_at, time.monotonic() - self.began)

    async def _begin(self) -> _Step:
        try:
            self.offer = await self.agent.connect()
        except RulesError as error:
            return self._without_rules(error)
        if self.force == "consult" and self.offer is not None:
            text_mode = self.agent.tool_mode == "text"
            message, call = agent_written_call(self.offer.name, self.prompt, self.call_ids, text_mode)
            self.messages.append(message)
            self.calls = [call]
            self.call_ids.add(call.id)
            self.method = "agent_call"
            return _Step.CONSULT
        return _Step.ASK

    async def _ask(self) -> _Step:
        index, tools = len(self.turns), self._tools()
        request_digest = digest_of([self.agent.endpoint.model, self.sampling, self.messages, tools])
        recorded = self.memory.turn(index, request_digest)
        if recorded is None:
            recorded = await self._drawn(index, request_digest, tools)
            self.memory.save_turn(recorded)
        reply = self._read(recorded.message, index)
        if self.force == "direct" and self.offer is not None:
            self.method = "resample" if self.agent.call_token is None else "logit_bias"
            if self._consults(reply):
                self.method, self.force = "resample_failed", None
        self.turns.append(recorded.turn.model_copy(update={"call_source": reply.source}))
        self.model_returned = recorded.model or self.model_returned
        self.effective = recorded.effective or self.effective
        self.messages.append(reply.message)
        self.calls = reply.calls
        self.call_ids |= {call.id for call in reply.calls}
        if self.calls:
            return _Step.CONSULT
        filtered = recorded.turn.finish_reason == "content_filter" or reply.message.get("refusal")
        return self._end("refused" if filtered else "answer")

    def _read(self, message: Message, index: int) -> ParsedReply:
        return parse_reply(
            message,
            turn=index,
            offered=[tool["function"]["name"] for tool in self._tools()],
            taken=self.call_ids,
            text_mode=self.agent.tool_mode == "text",
        )

    def _consults(self, reply: ParsedReply) -> bool:
        return self.offer is not None and any(call.name == self.offer.name for call in reply.calls)

    async def _drawn(self, index: int, request_digest: str, tools: list[dict[str, Any]]) -> RecordedTurn:
        """The model's reply; drawn again while it consults in an episode that is to answer directly."""
        if self.force != "direct" or self.offer is None:
            return await self._reply(index, request_digest, tools, self.sampling)
        self.method = self.method or "resample_failed"  # until a draw answers: time may run out before
        half = self.began + self.agent.limits.seconds / 2  # the rest is for what comes after a consultation
        for draw in range(self.agent.direct_draws):
            fields = redraw_sampling(self.sampling, draw, self.agent.call_token)
            recorded = await self._reply(index, request_digest, tools, fields)
            recorded.turn.rejected = draw
            if not self._consults(self._read(recorded.message, index)) or time.monotonic() > half:
                break
        return recorded

    async def _reply(
        self, index: int, request_digest: str, tools: list[dict[str, Any]], sampling: dict[str, Any]
    ) -> RecordedTurn:
        started_at, began = now(), time.monotonic()
        reply = await self.agent.endpoint.complete(
            self.messages,
            tools,
            sampling,
            on_delta=(lambda kind, text: self.tell(Event(kind, text))) if self.stream else None,
            on_retry=lambda why: self.tell(Event("retry", why)),
        )
        turn = Turn(
            index=index,
            request_digest=request_digest,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            started_at=started_at,
            seconds=time.monotonic() - began,
            attempts=reply.attempts,
            prompt_token_ids=reply.prompt_token_ids,
            token_ids=reply.token_ids,
            logprobs=reply.logprobs,
        )
        return RecordedTurn(turn=turn, message=reply.message, model=reply.model, effective=reply.effective)

    async def _consult(self) -> _Step:
        """Answer every call of the last reply, then ask again unless a limit is reached."""
        limits = self.agent.limits
        used = sum((turn.usage or {}).get("completion_tokens") or 0 for turn in self.turns)
        if len(self.turns) >= limits.turns or (limits.tokens is not None and used >= limits.tokens):
            self._close(_OVER)
            return self._end("limit")
        while len(self.results) < len(self.calls):
            call = self.calls[len(self.results)]
            try:
                self.results.append(await self._result(call))
            except RulesError as error:
                self.results.append(RULES_UNREACHABLE)
                return self._without_rules(error)
        self._answer_calls()
        return self._end("limit") if self.desk.most_repetitions > _MOST_REPETITIONS else _Step.ASK

    async def _result(self, call: ToolCall) -> str:
        """The text that answers one call; a call of the rule tool leaves a consultation behind."""
        turn = max(len(self.turns) - 1, 0)
        if self.offer is not None and call.name == self.offer.name:
            return await self.desk.answer(call, turn)
        self.desk.count(call, turn)
        own = self.agent.own_tools.get(call.name)
        if own is None:
            known = ", ".join(tool["function"]["name"] for tool in self._tools()) or "none"
            return f"Error: there is no tool {call.name!r}; the tools offered are: {known}."
        text = self.memory.result(turn, call.id)
        if text is None:
            text = await own.answer(call)
            self.memory.save_result(turn, call.id, text)
        return text

    def _without_rules(self, error: RulesError) -> _Step:
        """Carry out what the user chose for rules that cannot be consulted."""
        if self.agent.on_rules_error == "fail":
            raise error
        self.error = _record(error)
        self.tell(Event("warning", str(error)))
        if self.agent.on_rules_error == "answer":
            return _Step.ASK
        self._close(f"Error: {error}")
        self.messages.append({"role": "assistant", "content": REFUSAL_WITHOUT_RULES})
        return self._end("refused")

    def _close(self, text: str) -> None:
        """Answer the calls that nobody will carry out any more, so that none is left dangling."""
        for call in self.calls[len(self.results) :]:
            if self.offer is not None and call.name == self.offer.name:
                turn = max(len(self.turns) - 1, 0)
                self.desk.note(call, turn, text, error="not carried out: the episode ended")
            self.results.append(text)
        self._answer_calls()

    def _answer_calls(self) -> None:
        if self.calls:
            text_mode = self.agent.tool_mode == "text"
            source: Literal["native", "text"] = "text" if text_mode else "native"
            if self.turns:  # otherwise the agent wrote the call
                source = self.turns[-1].call_source or "native"
            self.messages += tool_messages(self.calls, self.results, source, text_mode)
        self.calls, self.results = [], []

    def _end(self, reason: StopReason) -> _Step:
        self.stop = reason
        return _Step.DONE

    def _tools(self) -> list[dict[str, Any]]:
        return self.agent.offered(self.offer)

    def _recorded(self, started_at: str, seconds: float) -> Episode:
        agent, tools = self.agent, self._tools()
        prompt_digest = text_digest(agent.system)
        rulebook_digest = self.offer.digest if self.offer else agent.rulebook_digest
        setting = [
            self.prompt_id,
            agent.endpoint.model,
            agent.policy_version,
            rulebook_digest,
            {name: value for name, value in self.sampling.items() if name != "seed"},
            tools,
            prompt_digest,
        ]
        return Episode(
            id=uuid.uuid4().hex,
            group_id=digest_of(setting),
            prompt_id=self.prompt_id,
            kind=self.kind,
            prompt=self.prompt,
            sample_index=self.sample_index,
            model_requested=agent.endpoint.model,
            model_returned=self.model_returned,
            endpoint=agent.endpoint.public_url,
            api=agent.endpoint.api,
            policy_version=agent.policy_version,
            sampling_sent=self.sampling,
            sampling_effective=self.effective,
            tool_mode=agent.tool_mode,
            rulebook_digest=rulebook_digest,
            tool_schema_digest=digest_of(tools) if tools else None,
            prompt_digest=prompt_digest,
            limits=agent.limits,
            messages=self.messages,
            tools=tools,
            turns=self.turns,
            consultations=self.desk.consultations,
            mode="consult" if self.desk.consultations else "direct",
            mode_forced=self.method is not None,
            mode_method=self.method,
            stop_reason=self.stop,
            on_rules_error=agent.on_rules_error,
            error=self.error,
            started_at=started_at,
            seconds=seconds,
        )


def _record(error: Exception) -> ErrorRecord:
    if not isinstance(error, AgentError):  # a bug, or a reply stranger than any we know: its siblings go on
        return ErrorRecord(boundary=AgentError.boundary, type=type(error).__name__, message=str(error))
    return ErrorRecord(boundary=error.boundary, type=error.type, message=str(error), setup=error.setup)
