"""What is wrong with a rulebook: what keeps it from being served, and what a reviewer would send back."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rule_server.rule_files import Problem, read_rulebook
from rule_server.rulebook import Rule, Rulebook

_COMMAND = re.compile(
    r"\b(ignore|disregard|forget) (all |any |the |your )*(previous|prior|above|earlier)\b|</?\|?\w+\|?>",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LintReport:
    """Counts and problems; `ok` when there is none."""

    rules: int
    categories: int
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "rules": self.rules,
            "categories": self.categories,
            "problems": [problem.as_dict() for problem in self.problems],
        }


def lint_rules(
    folder: Path, variables: Mapping[str, str] | None = None, *, today: datetime.date | None = None
) -> LintReport:
    """Check a rules folder. Raises RulebookError when there is no such folder."""
    rulebook, problems = read_rulebook(folder, variables)
    if rulebook is None:
        files = [path for path in folder.glob("*/*.md") if not path.name.startswith((".", "_"))]
        return LintReport(len(files), len(list(folder.glob("*/_category.md"))), problems)
    problems = _review(rulebook, today or datetime.datetime.now(datetime.UTC).date())
    return LintReport(len(rulebook.rules), len(rulebook.categories), problems)


def _review(rulebook: Rulebook, today: datetime.date) -> list[Problem]:
    problems = []
    asked: dict[str, Rule] = {}
    for rule in rulebook.rules:
        file = f"{rule.id.replace('.', '/')}{'.' + rule.lang if rule.lang else ''}.md"
        if rule.status == "active" and rule.review_by < today:
            problem = f"its review was due on {rule.review_by}"
            problems.append(Problem(file, problem, "review it and set a new `review_by`"))
        if _COMMAND.search(f"{rule.title} {rule.text}"):
            problem = "its text reads like a command to the model's machinery"
            problems.append(Problem(file, problem, "describe the guidance in plain words"))
        for query in rule.queries:
            other = asked.setdefault(f"{rule.lang} {query.casefold()}", rule)
            if other is not rule:
                problem = f"the query {query!r} stands in {other.id} too"
                problems.append(Problem(file, problem, "keep it in the rule that it is about"))
    answering = {rule.category for rule in rulebook.served.values() if rule.stance == "answer"}
    for category in rulebook.categories:
        if category.id not in answering:
            problem = "no active rule of this category has the stance `answer`"
            problems.append(Problem(f"{category.id}/_category.md", problem, "add one that says what is fine"))
    return problems
