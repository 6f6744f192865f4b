"""Counts how often each rule was returned since the service started."""

from __future__ import annotations

from collections import Counter

from rule_server.observability import now
from rule_server.rulebook import Rulebook
from rule_server.schemas import ConsultResponse
from rule_server.service.changes import ViewModel


class UsageView(ViewModel):
    """Usage of the rules since the service started."""

    since: str
    consultations: int
    no_applicable_rule: int
    """Consultations that matched no rule."""
    rules: dict[str, int]
    """Number of consultations that returned each served rule."""


class UsageCounter:
    """Counts consultations. A rule counts once per consultation."""

    def __init__(self) -> None:
        self._since = now()
        self._consultations = 0
        self._without_rule = 0
        self._rules: Counter[str] = Counter()

    def add(self, response: ConsultResponse) -> None:
        self._consultations += 1
        if response.rules:
            self._rules.update(rule.id for rule in response.rules)
        else:
            self._without_rule += 1

    def view(self, rulebook: Rulebook) -> UsageView:
        """Returns the counts of the rules that this rulebook serves."""
        return UsageView(
            since=self._since,
            consultations=self._consultations,
            no_applicable_rule=self._without_rule,
            rules={id: self._rules[id] for id in rulebook.served},
        )
