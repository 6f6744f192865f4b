"""TODO: docstring."""

from __future__ import annotations

from collections import Counter

from rule_server.observability import now
from rule_server.rulebook import Rulebook
from rule_server.schemas import ConsultResponse
from rule_server.service.changes import _View


class UsageView(_View):
    """How often rules came back since the service started."""

    since: str
    consultations: int
    no_applicable_rule: int
    """Consultations that found none."""
    rules: dict[str, int]
    """Every served rule; 0 for one that never came back."""


class UsageCounter:
    """Counts consultations; a rule is counted once a consultation."""

    def __init__(self) -> None:
        self._since = now()
        self._consultations = 0
        self._nothing = 0
        self._rules: Counter[str] = Counter()

    def add(self, response: ConsultResponse) -> None:
        self._consultations += 1
        if response.rules:
            self._rules.update(rule.id for rule in response.rules)
        else:
            self._nothing += 1

    def view(self, rulebook: Rulebook) -> UsageView:
        """The counts of the rules that this rulebook serves."""
        return UsageView(
            since=self._since,
            consultations=self._consultations,
            no_applicable_rule=self._nothing,
            rules={id: self._rules[id] for id in rulebook.served},
        )
