"""Where calls of the rule tool are answered: by the rule service, or by a sentence that says why not."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.endpoint import ToolCall, explain_malformed_call
from agent.episode import Consultation, Event, Listener, OnRulesError, RecordedReplies
from agent.errors import RulesError
from agent.tools.rules_client import ConsultResult, read_verdict

REFUSAL_WITHOUT_RULES = (
    "I cannot answer this now, because the safety rules cannot be consulted. Please try again later."
)
RULES_UNREACHABLE = "Error: the safety rules cannot be consulted now. Use your own careful judgement."
_ENOUGH = "Error: no further consultation is possible here. Answer with what you have read."
_REPEATED = "Error: you made this same call before; its result stands above. Answer with it."


class Rules(Protocol):
    """What answers a consultation; `RulesClient` is one."""

    @property
    def consult(self) -> Callable[[dict[str, Any]], Awaitable[ConsultResult]]: ...


@dataclass
class RuleTool:
    """Answers the rule calls of one conversation and keeps a record of each.

    A call that cannot be read, repeats an earlier one or comes after `limit` consultations is answered with a
    sentence for the model, without asking the service.
    """

    rules: Rules | None
    limit: int
    on_rules_error: OnRulesError
    memory: RecordedReplies = field(default_factory=RecordedReplies)
    tell: Listener = lambda event: None
    consultations: list[Consultation] = field(default_factory=list)
    """The calls answered so far, in order."""
    asked: int = 0
    """How often the service was asked, or was to be."""
    last_failure: RulesError | None = None
    """Why the service could not be asked the last time that it could not; None when it always could."""
    _seen: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def copy(self) -> RuleTool:
        """The same state of affairs, which goes its own way from here."""
        seen = {call: list(turns) for call, turns in self._seen.items()}
        return replace(self, consultations=list(self.consultations), _seen=seen)

    def count(self, call: ToolCall, turn: int) -> int:
        """How often this very call has been made, this time included."""
        turns = self._seen.setdefault((call.name, call.arguments), [])
        turns.append(turn)
        return len(turns)

    @property
    def most_repetitions(self) -> int:
        """In how many turns the most repeated call was made; 0 before the first call."""
        return max((len(set(turns)) for turns in self._seen.values()), default=0)

    async def answer(self, call: ToolCall, turn: int) -> str:
        """The text that answers one call of the rule tool, made in this turn.

        Raises:
            RulesError: when the service cannot be asked and the model is not to answer without it.
        """
        repetition = self.count(call, turn)
        if call.parsed is None:
            return self.note(call, turn, explain_malformed_call(call), error=call.problem)
        if repetition > 1:
            return self.note(call, turn, _REPEATED, error="repeated")
        if self.asked >= self.limit:
            return self.note(call, turn, _ENOUGH, error="limit")
        self.asked += 1
        return await self._ask(call, call.parsed, turn)

    def note(self, call: ToolCall, turn: int, text: str, **known: Any) -> str:
        """Record a call of the rule tool, and return the text that answers it."""
        situation = (call.parsed or {}).get("situation")
        consultation = Consultation(
            turn=turn,
            call_id=call.id,
            arguments=call.arguments,
            situation=situation if isinstance(situation, str) else None,
            text=text,
            **known,
        )
        self.consultations.append(consultation)
        self.tell(Event("consulted", consultation=consultation))
        return text

    async def _ask(self, call: ToolCall, arguments: dict[str, Any], turn: int) -> str:
        assert self.rules is not None
        if (recorded := self.memory.consultation(turn, call.id)) is not None:
            self.consultations.append(recorded)
            return recorded.text or ""
        self.tell(Event("call", call.arguments))
        began = time.monotonic()
        try:
            result = await self.rules.consult(arguments)
        except RulesError as error:
            self.last_failure = error
            self.note(call, turn, RULES_UNREACHABLE, error=str(error), seconds=time.monotonic() - began)
            if self.on_rules_error == "answer":
                return RULES_UNREACHABLE
            raise
        found, problem = read_verdict(result)
        text = self.note(call, turn, result.text, error=problem, seconds=time.monotonic() - began, **found)
        self.memory.save_consultation(self.consultations[-1])
        return text


@dataclass(frozen=True)
class ToolOffer:
    """The rule tool as offered to the model, and the digest of the rulebook behind it."""

    tool: dict[str, Any]
    digest: str

    @property
    def name(self) -> str:
        return str(self.tool["function"]["name"])
