"""Executes the hidden consultations of one request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from agent.endpoint import ToolCall
from agent.episode import Consultation, Hint, digest_of
from agent.gateway.exchange.conversation import Stage
from agent.gateway.metrics import GatewayMetrics
from agent.gateway.settings import Settings
from agent.tools import RULES_UNREACHABLE, ConsultResult, RulesClient, RuleTool, ToolOffer

T = TypeVar("T")


class ConsultCache:
    """The rule service, queried once per distinct consultation of a request and its retries."""

    def __init__(self, rules: RulesClient | None) -> None:
        self._rules = rules
        self.results: dict[str, ConsultResult] = {}

    async def consult(self, arguments: dict[str, Any]) -> ConsultResult:
        """Returns the service's result. Errors are not cached."""
        assert self._rules is not None
        key = digest_of(arguments)
        if key not in self.results:
            self.results[key] = await self._rules.consult(arguments)
        return self.results[key]

    async def hint(self, request: str) -> Hint:
        """Returns a line about the rules near a request."""
        assert self._rules is not None
        return await self._rules.hint(request)


def _text_without_result(call: ToolCall, offer: ToolOffer | None) -> str:
    if offer is not None and call.name == offer.name:
        return RULES_UNREACHABLE
    return (
        f"Error: there is no tool named {call.name}. Call a tool that you were given, or answer without one."
    )


class ConsultationExecutor:
    """Decides whether the rule tool is offered, and executes its calls.

    Args:
        offer: the rule tool; None if it is not offered.
        rules: client of the rule service.
    """

    def __init__(
        self, offer: ToolOffer | None, rules: RulesClient | None, settings: Settings, metrics: GatewayMetrics
    ) -> None:
        self.offer = offer
        self.stage: Stage = "offered" if offer is not None else "removed"
        self.cache = ConsultCache(rules)
        self.rule_tool = RuleTool(self.cache, settings.max_consultations, settings.on_rules_error)
        self._max_consultations = settings.max_consultations
        self._metrics = metrics
        self._task: asyncio.Task[Any] | None = None
        """The consultation in progress, which finishes even if the caller disconnects."""

    @property
    def consultations(self) -> list[Consultation]:
        """The calls of the rule tool so far."""
        return self.rule_tool.consultations

    @property
    def consulted(self) -> bool:
        """Whether the model called the rule tool."""
        return bool(self.consultations)

    @property
    def has_results(self) -> bool:
        """Whether a later attempt of the same request can reuse a consultation."""
        return self._task is not None or bool(self.cache.results)

    async def answer(self, calls: list[ToolCall], turn: int, results: dict[str, str]) -> None:
        """Executes calls of the rule tool and stores their results by call id.

        Calls that an error leaves without a result get a text that reports the error, and so do calls of a
        tool that nobody offered.

        Raises:
            RulesError: if the rules cannot be consulted and the model may not answer without them.
        """
        results.update({call.id: _text_without_result(call, self.offer) for call in calls})
        rule_calls = [call for call in calls if self.offer is not None and call.name == self.offer.name]
        if rule_calls and not self.consulted:
            self._metrics.consulted.inc()
        for call in rule_calls:
            self._metrics.consultations.inc()
            results[call.id] = await self.rule_tool.answer(call, turn)

    async def run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that finishes even if the caller disconnects."""
        task = self._task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():
                self._task = None

    def advance(self, turns: int) -> None:
        """Forbids the rule tool if the model has consulted often enough or repeats itself.

        A model that calls the forbidden tool does not see it any more.
        """
        tool, limit = self.rule_tool, self._max_consultations
        if tool.queries >= limit or tool.max_repetitions > 1 or turns > limit + 1:
            self.stage = "removed" if self.stage == "forbidden" else "forbidden"

    async def wait(self) -> None:
        """Waits for the consultation in progress, if there is one."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def withdraw_offer(self) -> None:
        """Continues as if the rule tool had not been offered."""
        self.offer, self.stage = None, "removed"

    def resume(self, rule_tool: RuleTool, stage: Stage) -> None:
        """Continues from the state of an earlier attempt's rule tool."""
        self.rule_tool = replace(rule_tool.copy(), rules=self.cache)
        self.stage = stage
