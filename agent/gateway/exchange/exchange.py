"""One caller request, from its first turn to the reply that the caller sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.episode import ErrorRecord, Hint, Turn
from agent.errors import EndpointError, RulesError
from agent.gateway.exchange.consultation_executor import ConsultationExecutor
from agent.gateway.exchange.conversation import Conversation, RequestBody, SplitReply, Stage
from agent.gateway.exchange.response_headers import ResponseHeaders
from agent.gateway.exchange.turn_record import TurnRecord
from agent.gateway.metrics import GatewayMetrics
from agent.gateway.settings import Settings
from agent.gateway.wire import CallerRequest
from agent.tools import RuleTool


@dataclass(frozen=True)
class Snapshot:
    """The state after the last hidden turn, which a retry of the request can resume from."""

    entries: list[Any]
    given: int
    hint: Hint | None
    reasoning: dict[str, str]
    turns: list[Turn]
    hidden_usage: dict[str, Any] | None
    rule_tool: RuleTool
    stage: Stage


@dataclass
class Exchange:
    """Processes the model's replies, consults the rules, and decides what the caller sees.

    Whole and streamed replies of both APIs share it.
    """

    conversation: Conversation
    loop: ConsultationExecutor
    reason_not_offered: str | None
    """Why the rule tool is not offered; None if it is."""
    settings: Settings
    metrics: GatewayMetrics
    turns: TurnRecord = field(default_factory=TurnRecord)
    error: ErrorRecord | None = None
    """Why the rules could not be consulted, or the upstream sent no usable reply."""
    recorded: bool = False
    """Whether the conversation was written to the log, or must not be."""
    snapshot: Snapshot | None = None

    def __post_init__(self) -> None:
        self.metrics.restored.inc(self.conversation.restored)
        if self.settings.logit_bias and self.loop.offer is not None and self.conversation.api == "responses":
            self.withdraw_bias("responses_api")

    @property
    def request(self) -> CallerRequest:
        """The caller's request."""
        return self.conversation.request

    @property
    def consulted(self) -> bool:
        """Whether the model called the rule tool."""
        return self.loop.consulted

    @property
    def resumable(self) -> bool:
        """Whether a retry of the request can reuse hidden turns or consultations."""
        return self.snapshot is not None or self.loop.has_results

    async def add_hint(self) -> None:
        """Adds a hint about the user's last message to the conversation if hints are enabled.

        Raises:
            RulesError: if there is no hint and the model may not answer without one.
        """
        if not self.settings.hint or self.loop.offer is None or self.snapshot is not None:
            return
        if not (prompt := self.conversation.prompt).strip():
            return
        try:
            self.conversation.hint = await self.loop.cache.hint(prompt)
        except RulesError as error:
            self.rules_failed(error)
            if self.settings.on_rules_error != "answer":
                raise
        else:
            self.metrics.hints.inc()

    def next_bodies(self) -> list[RequestBody]:
        """Starts a turn: returns the next request, then its fallbacks if the upstream refuses it, in
        order."""
        self.turns.begin()
        bodies = self.conversation.bodies(self.loop.stage)
        strict = self.settings.on_rules_error != "answer"
        return [body for body in bodies if body.has_offer or not strict]

    def withdraw_offer(self, status: int) -> None:
        """Records that the upstream refused the rule tool, and accepted the caller's own request."""
        self.reason_not_offered = f"the upstream refuses the rule tool with this request (HTTP {status})"
        self.metrics.not_offered.inc()
        self.loop.withdraw_offer()
        self.conversation.withdraw_offer()

    def withdraw_bias(self, cause: str) -> None:
        """Records that the requests of the conversation have no decision bias, because of `cause`."""
        self.conversation.logit_bias = None
        self.metrics.decision_bias_missing.labels(cause).inc()

    async def take(self, reply: dict[str, Any]) -> Any | None:
        """Processes a reply of the upstream.

        Returns:
            The message or the items that the caller sees; None if the model only consulted, so that it must
            be asked again.

        Raises:
            RulesError: if the rules cannot be consulted and the model may not answer without them.
        """
        parsed = self.conversation.parse(reply, len(self.turns))
        self.turns.add(self.conversation, parsed)
        if parsed.hidden_calls and self.loop.stage != "removed":
            return await self.loop.run_to_end(self._consult(parsed))
        self.conversation.add_visible_reply(parsed)
        return parsed.visible

    async def _consult(self, parsed: SplitReply) -> Any | None:
        results: dict[str, str] = {}
        try:
            await self.loop.answer(parsed.hidden_calls, len(self.turns) - 1, results)
        except RulesError:
            self.conversation.add_hidden_turn(parsed, results)
            raise
        failure = self.loop.rule_tool.last_failure
        if failure is not None and self.error is None:
            self.rules_failed(failure)
        if parsed.mixed:
            self.metrics.mixed.inc()
            self.conversation.add_mixed_reply(parsed, results)
            return parsed.visible
        self.turns.add_hidden_usage(parsed.usage)
        self.conversation.add_hidden_turn(parsed, results)
        self.loop.advance(len(self.turns))
        self._save_snapshot()
        return None

    def _save_snapshot(self) -> None:
        self.snapshot = Snapshot(
            entries=list(self.conversation.entries),
            given=self.conversation.given,
            hint=self.conversation.hint,
            reasoning=dict(self.conversation.reasoning),
            turns=list(self.turns.turns),
            hidden_usage=self.turns.hidden_usage,
            rule_tool=self.loop.rule_tool.copy(),
            stage=self.loop.stage,
        )

    async def resume_from(self, earlier: Exchange) -> None:
        """Takes over the hidden turns and consultations of an earlier attempt of the same request."""
        await earlier.loop.wait()
        self.loop.cache.results = earlier.loop.cache.results
        if (snapshot := earlier.snapshot) is None:
            return
        self.conversation.entries = list(snapshot.entries)
        self.conversation.given = snapshot.given
        self.conversation.hint = snapshot.hint
        self.conversation.reasoning = dict(snapshot.reasoning)
        self.conversation.has_hidden_turns = True
        self.turns.turns = list(snapshot.turns)
        self.turns.hidden_usage = snapshot.hidden_usage
        self.loop.resume(snapshot.rule_tool, snapshot.stage)
        self.snapshot = snapshot

    def rules_failed(self, error: RulesError) -> None:
        """Records that the rules could not be consulted."""
        if self.error is None:
            self.metrics.rules_errors.inc()
        self.error = ErrorRecord(
            boundary=error.boundary, type=error.type, message=str(error), setup=error.setup
        )

    @property
    def rules_error(self) -> str | None:
        """Why the model got no rules, such as `timeout` or `http_429`; None if it did, or did not consult."""
        return self._response_headers().rules_error

    def upstream_failed(self, type: str, message: str) -> None:
        """Records that the upstream sent no usable reply."""
        self.metrics.upstream_errors.inc()
        self.error = ErrorRecord(boundary=EndpointError.boundary, type=type, message=message)

    def headers(self, *, final: bool) -> dict[str, str]:
        """Returns the gateway's own headers; `final` if the model can no longer consult."""
        return self._response_headers().build(final=final)

    def _response_headers(self) -> ResponseHeaders:
        return ResponseHeaders(self.loop.offer, self.reason_not_offered, self.loop.consultations, self.error)
