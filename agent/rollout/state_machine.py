"""One episode as a state machine: ask -> (consult -> ask)* -> answer | refused | limit | error.

The model decides whether to consult; the agent injects nothing.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

from agent.endpoint import ParsedReply, ToolCall, parse_reply, tool_messages
from agent.episode import (
    ConversationTurn,
    Episode,
    ErrorRecord,
    Event,
    Hint,
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
    has_reply,
    now,
    text_digest,
)
from agent.errors import AgentError, RulesError
from agent.rollout.context import RolloutContext
from agent.rollout.forced_modes import agent_written_call, redraw_sampling
from agent.tools import REFUSAL_WITHOUT_RULES, RULES_UNREACHABLE, RuleTool, ToolOffer

_LIMIT_REACHED = "Error: this conversation ends here, because its limit is reached."
_MAX_REPETITIONS = 2


class _Step(Enum):
    ASK = auto()
    CONSULT = auto()
    DONE = auto()


@dataclass
class EpisodeRun:
    """The state of one episode while it runs."""

    context: RolloutContext
    prompt: str
    prompt_id: str
    kind: str | None
    sample_index: int
    sampling: dict[str, Any]
    recorded: RecordedReplies
    stream: bool
    notify: Listener
    force: Mode | None = None
    conversation: ConversationTurn | None = None
    offer: ToolOffer | None = None
    messages: list[Message] = field(default_factory=list)
    history: list[Message] = field(default_factory=list)
    given: int = 0
    """Number of messages before the first reply."""
    turns: list[Turn] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    """Calls of the last reply."""
    results: list[str] = field(default_factory=list)
    """Results of `calls` so far."""
    call_ids: set[str] = field(default_factory=set)
    model_returned: str | None = None
    effective: dict[str, Any] | None = None
    stop: StopReason = "error"
    error: ErrorRecord | None = None
    method: ModeMethod | None = None
    system: str = ""
    """The system text."""
    hint: Hint | None = None
    """The hint at the end of the system text."""
    start: float = 0.0
    """Start time on the monotonic clock, in seconds."""

    def __post_init__(self) -> None:
        context = self.context
        limit = context.limits.consultations
        self.rule_tool = RuleTool(context.rules, limit, context.on_rules_error, self.recorded, self.notify)

    async def episode(self, history: list[Message]) -> Episode:
        """Runs the episode to its end and returns its record."""
        started_at, self.start = now(), time.monotonic()
        self.system = self.context.system_text(None)
        self.messages = [
            *([{"role": "system", "content": self.system}] if self.system else []),
            *history,
            {"role": "user", "content": self.prompt},
        ]
        self.history = history
        self.given = len(self.messages)
        self.call_ids = set(call_ids(history))
        try:
            async with asyncio.timeout(self.context.limits.seconds) as deadline:
                step = await self._first_step()
                while step is not _Step.DONE:
                    step = await (self._ask() if step is _Step.ASK else self._consult())
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                self._close_calls(_LIMIT_REACHED)
                self.stop = "limit"
            else:
                self._close_calls(f"Error: {error}")
                self.stop, self.error = "error", _error_record(error)
        return self._to_episode(started_at, time.monotonic() - self.start)

    async def _first_step(self) -> _Step:
        try:
            self.offer = await self.context.connect()
        except RulesError as error:
            return self._handle_rules_error(error)
        guided = self.context.system_text(self.offer)
        if guided != self.system:
            self.system = guided
            self.messages[0] = {"role": "system", "content": guided}
        if self.context.wants_hint(self.prompt_id):
            try:
                await self._add_hint()
            except RulesError as error:
                return self._handle_rules_error(error)
        if self.force == "consult" and self.offer is not None:
            text_mode = self.context.tool_mode == "text"
            message, call = agent_written_call(self.offer.name, self.prompt, self.call_ids, text_mode)
            self.messages.append(message)
            self.calls = [call]
            self.call_ids.add(call.id)
            self.method = "agent_call"
            return _Step.CONSULT
        return _Step.ASK

    async def _add_hint(self) -> None:
        """Adds a line about the rules near the prompt to the end of the system text.

        The model still decides whether to consult, but knows more.
        """
        assert self.context.rules is not None
        self.hint = await self.context.rules.hint(self.prompt)
        message = {"role": "system", "content": f"{self.system}\n\n{self.hint.text}".strip()}
        if self.system:
            self.messages[0] = message
        else:
            self.messages.insert(0, message)
            self.given += 1

    async def _ask(self) -> _Step:
        """Requests the next reply, or takes it from an earlier run."""
        index, tools = len(self.turns), self._tools()
        request_digest = digest_of([self.context.endpoint.model, self.sampling, self.messages, tools])
        recorded = self.recorded.turn(index, request_digest)
        if recorded is None:
            recorded = await self._sample_turn(index, request_digest, tools)
            self.recorded.save_turn(recorded)
        reply = self._parse(recorded.message, index)
        if self.force == "direct" and self.offer is not None:
            self.method = "resample" if self.context.call_token is None else "logit_bias"
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

    def _parse(self, message: Message, index: int) -> ParsedReply:
        return parse_reply(
            message,
            turn=index,
            offered=[tool["function"]["name"] for tool in self._tools()],
            taken=self.call_ids,
            text_mode=self.context.tool_mode == "text",
        )

    def _consults(self, reply: ParsedReply) -> bool:
        return self.offer is not None and any(call.name == self.offer.name for call in reply.calls)

    async def _sample_turn(
        self, index: int, request_digest: str, tools: list[dict[str, Any]]
    ) -> RecordedTurn:
        """Samples the model's reply, again while it consults in an episode that must answer directly."""
        if self.force != "direct" or self.offer is None:
            return await self._complete(index, request_digest, tools, self.sampling)
        self.method = self.method or "resample_failed"  # until a sample answers: the time may run out first
        halfway = self.start + self.context.limits.seconds / 2  # leaves the rest for a consultation
        for draw in range(self.context.direct_draws):
            fields = redraw_sampling(self.sampling, draw, self.context.call_token)
            recorded = await self._complete(index, request_digest, tools, fields)
            recorded.turn.rejected = draw
            if not self._consults(self._parse(recorded.message, index)) or time.monotonic() > halfway:
                break
        return recorded

    async def _complete(
        self, index: int, request_digest: str, tools: list[dict[str, Any]], sampling: dict[str, Any]
    ) -> RecordedTurn:
        started_at, start = now(), time.monotonic()
        reply = await self.context.endpoint.complete(
            self.messages,
            tools,
            sampling,
            on_delta=(lambda kind, text: self.notify(Event(kind, text))) if self.stream else None,
            on_retry=lambda reason: self.notify(Event("retry", reason)),
        )
        turn = Turn(
            index=index,
            request_digest=request_digest,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            started_at=started_at,
            seconds=time.monotonic() - start,
            attempts=reply.attempts,
            prompt_token_ids=reply.prompt_token_ids,
            token_ids=reply.token_ids,
            logprobs=reply.logprobs,
        )
        return RecordedTurn(turn=turn, message=reply.message, model=reply.model, effective=reply.effective)

    async def _consult(self) -> _Step:
        """Answers every call of the last reply; the next step is to ask again unless a limit is reached."""
        limits = self.context.limits
        tokens = sum((turn.usage or {}).get("completion_tokens") or 0 for turn in self.turns)
        if len(self.turns) >= limits.turns or (limits.tokens is not None and tokens >= limits.tokens):
            self._close_calls(_LIMIT_REACHED)
            return self._end("limit")
        while len(self.results) < len(self.calls):
            call = self.calls[len(self.results)]
            try:
                self.results.append(await self._result(call))
            except RulesError as error:
                self.results.append(RULES_UNREACHABLE)
                return self._handle_rules_error(error)
        self._answer_calls()
        return self._end("limit") if self.rule_tool.max_repetitions > _MAX_REPETITIONS else _Step.ASK

    async def _result(self, call: ToolCall) -> str:
        """Executes one call and returns the text for the model; a rule call adds a consultation."""
        turn = max(len(self.turns) - 1, 0)
        if self.offer is not None and call.name == self.offer.name:
            return await self.rule_tool.answer(call, turn)
        self.rule_tool.count(call, turn)
        tool = self.context.custom_tools.get(call.name)
        if tool is None:
            names = ", ".join(tool["function"]["name"] for tool in self._tools()) or "none"
            return f"Error: there is no tool {call.name!r}; the tools offered are: {names}."
        request = f"{call.name}({call.arguments})"
        text = self.recorded.result(turn, call.id, request)
        if text is None:
            text = await tool.answer(call)
            self.recorded.save_result(turn, call.id, request, text)
        return text

    def _handle_rules_error(self, error: RulesError) -> _Step:
        """Applies the action that the user chose for rules that cannot be consulted."""
        if self.context.on_rules_error == "fail":
            raise error
        self.error = _error_record(error)
        self.notify(Event("warning", str(error)))
        if self.context.on_rules_error == "answer":
            return _Step.ASK
        self._close_calls(f"Error: {error}")
        self.messages.append({"role": "assistant", "content": REFUSAL_WITHOUT_RULES})
        return self._end("refused")

    def _close_calls(self, text: str) -> None:
        """Answers the remaining calls with `text`, so that no call stays unanswered."""
        for call in self.calls[len(self.results) :]:
            if self.offer is not None and call.name == self.offer.name:
                turn = max(len(self.turns) - 1, 0)
                self.rule_tool.record(call, turn, text, error="not executed: the episode ended")
            self.results.append(text)
        self._answer_calls()

    def _answer_calls(self) -> None:
        if self.calls:
            text_mode = self.context.tool_mode == "text"
            source: Literal["native", "text"] = "text" if text_mode else "native"
            if self.turns:  # otherwise the agent wrote the call
                source = self.turns[-1].call_source or "native"
            self.messages += tool_messages(self.calls, self.results, source, text_mode)
        self.calls, self.results = [], []

    def _end(self, reason: StopReason) -> _Step:
        self.stop = reason
        return _Step.DONE

    def _tools(self) -> list[dict[str, Any]]:
        return self.context.offered(self.offer)

    def _rules_failure(self) -> str | None:
        """Returns the reason why the model received no rules although the episode ended with an answer."""
        if self.stop != "answer":
            return None
        if (cause := self.rule_tool.cause_without_rules) is not None:
            return cause
        return self.error.type if self.error is not None and self.error.boundary == "rules" else None

    def _group_id(self, rulebook_digest: str | None) -> str:
        return digest_of(
            [
                self.prompt_id,
                self.context.endpoint.model,
                self.context.policy_version,
                rulebook_digest,
                {name: value for name, value in self.sampling.items() if name != "seed"},
                self._tools(),
                text_digest(self.system),
                *([self.hint.text] if self.hint is not None else []),
                *([self.history] if self.history else []),
            ]
        )

    def _to_episode(self, started_at: str, seconds: float) -> Episode:
        context, tools = self.context, self._tools()
        rulebook_digest = self.offer.digest if self.offer else context.rulebook_digest
        return Episode(
            id=uuid.uuid4().hex,
            group_id=self._group_id(rulebook_digest),
            prompt_id=self.prompt_id,
            kind=self.kind,
            prompt=self.prompt,
            sample_index=self.sample_index,
            model_requested=context.endpoint.model,
            model_returned=self.model_returned,
            endpoint=context.endpoint.public_url,
            api=context.endpoint.api,
            policy_version=context.policy_version,
            sampling_sent=self.sampling,
            sampling_effective=self.effective or _as_dict(context.sampling_effective),
            tool_mode=context.tool_mode,
            rulebook_digest=rulebook_digest,
            tool_schema_digest=digest_of(tools) if tools else None,
            prompt_digest=text_digest(self.system),
            hint=self.hint,
            limits=context.limits,
            messages=self.messages,
            given_messages=self.given if has_reply(self.history) else None,
            conversation=self.conversation,
            tools=tools,
            turns=self.turns,
            consultations=self.rule_tool.consultations,
            mode="consult" if self.rule_tool.consultations else "direct",
            mode_forced=self.method is not None,
            mode_method=self.method,
            stop_reason=self.stop,
            on_rules_error=context.on_rules_error,
            answered_without_rules=self._rules_failure(),
            error=self.error,
            started_at=started_at,
            seconds=seconds,
        )


def _as_dict(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if fields is None else dict(fields)


def _error_record(error: Exception) -> ErrorRecord:
    if not isinstance(error, AgentError):  # a bug or an unforeseen reply: the other episodes continue
        return ErrorRecord(boundary=AgentError.boundary, type=type(error).__name__, message=str(error))
    return ErrorRecord(boundary=error.boundary, type=error.type, message=str(error), setup=error.setup)
