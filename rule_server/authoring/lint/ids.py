"""Whether the ids of a rulebook still mean what an earlier one published under them."""

from __future__ import annotations

import re

from rule_server.rulebook import LintProblem, Rule, Rulebook

SAME = 0.5
"""Shared words (Jaccard) from which two rules are about the same."""
ANOTHER = 0.15
"""Below this, with another title, a rule is about something else. Different rules of one category of ours
share 0.11 of their words on average; a reworded one keeps far more, by its queries."""


def check_ids(before: Rulebook, after: Rulebook) -> list[LintProblem]:
    """What became of the ids of the earlier rulebook: gone, moved, or used for something else."""
    old, new = ({rule.id: rule for rule in book.rules if not rule.lang} for book in (before, after))
    added = [rule for id, rule in new.items() if id not in old]
    problems = []
    for id, was in old.items():
        file = f"{id.replace('.', '/')}.md"
        now = new.get(id)
        if now is None:
            moved = max(added, key=lambda rule: likeness(was, rule), default=None)
            if moved is not None and likeness(was, moved) >= SAME:
                place = "category and id" if moved.category != was.category else "id"
                problem = f"{id} of {before.version} has become {moved.id}"
                fix = f"keep its {place}, or keep {file} with `status: retired`"
            else:
                problem = f"{id} of {before.version} is gone"
                fix = "put the file back with `status: retired`, so that nobody uses the id again"
            problems.append(LintProblem.of(file, problem, fix))
        elif was.title != now.title and likeness(was, now) < (SAME if was.status == "retired" else ANOTHER):
            retired = ", retired," if was.status == "retired" else ""
            problem = f"{id} of {before.version}{retired} was about something else ({was.title!r})"
            problems.append(LintProblem.of(file, problem, "give the new rule an id of its own"))
    return problems


def likeness(one: Rule, other: Rule) -> float:
    """Shared words of two rules' titles, conditions and queries, 0 to 1 (Jaccard)."""
    words, others = _words(one), _words(other)
    return len(words & others) / max(len(words | others), 1)


def _words(rule: Rule) -> set[str]:
    return set(re.findall(r"\w+", " ".join([rule.title, rule.applies_when, *rule.queries]).casefold()))
