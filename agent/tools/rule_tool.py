"""Executes calls of the rule tool: queries the rule service, or returns an error message to the model."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.endpoint import ToolCall, explain_malformed_call
from agent.episode import Consultation, Event, Listener, OnRulesError, RecordedReplies
from agent.errors import RulesError
from agent.tools.rules_client import ConsultResult, parse_verdict

REFUSAL_WITHOUT_RULES = (
    "I cannot answer this now, because the safety rules cannot be consulted. Please try again later."
)
RULES_UNREACHABLE = "Error: the safety rules cannot be consulted now. Use your own careful judgement."
_LIMIT_REACHED = "Error: no further consultation is possible here. Answer with what you have read."
_REPEATED = "Error: you made this same call before; its result stands above. Answer with it."


class Rules(Protocol):
    """Anything that answers consultations, such as a `RulesClient`."""

    @property
    def consult(self) -> Callable[[dict[str, Any]], Awaitable[ConsultResult]]: ...


@dataclass
class RuleTool:
    """Executes the rule calls of one conversation and records each of them.

    A call that is malformed, repeats an earlier one or exceeds `limit` consultations receives an error
    message without a query of the service.
    """

    rules: Rules | None
    limit: int
    on_rules_error: OnRulesError
    recorded: RecordedReplies = field(default_factory=RecordedReplies)
    notify: Listener = lambda event: None
    consultations: list[Consultation] = field(default_factory=list)
    """The calls so far, in order."""
    queries: int = 0
    """Number of queries of the service, including those answered from an earlier run."""
    last_failure: RulesError | None = None
    """The last failure of the service; None if every query succeeded."""
    _seen: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def copy(self) -> RuleTool:
        """Returns an independent copy of the current state."""
        seen = {call: list(turns) for call, turns in self._seen.items()}
        return replace(self, consultations=list(self.consultations), _seen=seen)

    def count(self, call: ToolCall, turn: int) -> int:
        """Counts a call, and returns how often the model has made the same call so far."""
        turns = self._seen.setdefault((call.name, call.arguments), [])
        turns.append(turn)
        return len(turns)

    @property
    def cause_without_rules(self) -> str | None:
        """Why the model requested rules and received none; None if it received some, or did not consult.

        The type of the service's last failure, else `no_verdict` if every call was malformed, or the service
        returned no verdict.
        """
        if self.last_failure is not None:
            return self.last_failure.type
        without = self.consultations and all(each.verdict is None for each in self.consultations)
        return "no_verdict" if without else None

    @property
    def max_repetitions(self) -> int:
        """The number of turns with the most repeated call; 0 before the first call."""
        return max((len(set(turns)) for turns in self._seen.values()), default=0)

    async def answer(self, call: ToolCall, turn: int) -> str:
        """Executes a call of the rule tool in this turn and returns the text for the model.

        Raises:
            RulesError: if the service fails and `on_rules_error` is not `answer`.
        """
        repetition = self.count(call, turn)
        if call.parsed is None:
            return self.record(call, turn, explain_malformed_call(call), error=call.problem)
        if repetition > 1:
            return self.record(call, turn, _REPEATED, error="repeated")
        if self.queries >= self.limit:
            return self.record(call, turn, _LIMIT_REACHED, error="limit")
        self.queries += 1
        return await self._query(call, call.parsed, turn)

    def record(self, call: ToolCall, turn: int, text: str, **fields: Any) -> str:
        """Records a call of the rule tool and returns the text for the model."""
        situation = (call.parsed or {}).get("situation")
        consultation = Consultation(
            turn=turn,
            call_id=call.id,
            arguments=call.arguments,
            situation=situation if isinstance(situation, str) else None,
            text=text,
            **fields,
        )
        self.consultations.append(consultation)
        self.notify(Event("consulted", consultation=consultation))
        return text

    async def _query(self, call: ToolCall, arguments: dict[str, Any], turn: int) -> str:
        assert self.rules is not None
        if (recorded := self.recorded.consultation(turn, call.id, call.arguments)) is not None:
            self.consultations.append(recorded)
            return recorded.text or ""
        self.notify(Event("call", call.arguments))
        start = time.monotonic()
        try:
            result = await self.rules.consult(arguments)
            verdict, problem = parse_verdict(result)
            if problem is not None and not result.text.strip():
                raise RulesError(f"the rule service returned nothing to read: {problem}", type="no_verdict")
        except RulesError as error:
            self.last_failure = error
            self.record(call, turn, RULES_UNREACHABLE, error=str(error), seconds=time.monotonic() - start)
            if self.on_rules_error == "answer":
                return RULES_UNREACHABLE
            raise
        seconds = time.monotonic() - start
        text = self.record(call, turn, result.text, error=problem, seconds=seconds, **verdict)
        self.recorded.save_consultation(self.consultations[-1])
        return text


@dataclass(frozen=True)
class ToolOffer:
    """The rule tool as offered to the model, and the digest of the rulebook behind it."""

    tool: dict[str, Any]
    digest: str
    guidance: str | None = None
    """Text of the service on when to consult its rulebook; None if the agent's system text covers this."""

    @property
    def name(self) -> str:
        """The name of the tool."""
        return str(self.tool["function"]["name"])
