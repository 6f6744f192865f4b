"""Checks that the IDs in a rulebook keep the meaning that they had in an earlier version."""

from __future__ import annotations

import re
from collections.abc import Set

from rule_server.rulebook import LintProblem, Rule, Rulebook

SAME_RULE_SIMILARITY = 0.5
"""Word overlap (Jaccard) from which two rules have the same subject."""
OTHER_RULE_SIMILARITY = 0.15
"""Word overlap below which a rule with a different title has a different subject. Different rules in one
packaged category share 0.11 of their words on average; a reworded rule shares far more, because of its
queries."""


def check_ids(before: Rulebook, after: Rulebook, broken: Set[str] = frozenset()) -> list[LintProblem]:
    """Finds IDs from the earlier rulebook that are gone, renamed, or used for a different subject.

    `broken` are the ids of rules whose files cannot be read.
    """
    old, new = ({rule.id: rule for rule in book.rules if not rule.lang} for book in (before, after))
    added = [rule for id, rule in new.items() if id not in old]
    problems = []
    for id, previous in old.items():
        if id in broken:
            continue
        file = f"{id.replace('.', '/')}.md"
        current = new.get(id)
        if current is None:
            moved = max(added, key=lambda rule: similarity(previous, rule), default=None)
            if moved is not None and similarity(previous, moved) >= SAME_RULE_SIMILARITY:
                place = "category and id" if moved.category != previous.category else "id"
                problem = f"{id} of {before.version} has become {moved.id}"
                fix = f"keep its {place}, or keep {file} with `status: retired`"
            else:
                problem = f"{id} of {before.version} is gone"
                fix = "restore the file with `status: retired`, so that nobody uses the id again"
            problems.append(LintProblem.sanitized(file, problem, fix))
            continue
        retired = previous.status == "retired"
        limit = SAME_RULE_SIMILARITY if retired else OTHER_RULE_SIMILARITY
        if previous.title != current.title and similarity(previous, current) < limit:
            note = ", retired," if retired else ""
            problem = f"{id} of {before.version}{note} was about something else ({previous.title!r})"
            problems.append(LintProblem.sanitized(file, problem, "give the new rule an id of its own"))
    return problems


def similarity(one: Rule, other: Rule) -> float:
    """Returns the word overlap of two rules' titles, conditions and queries, 0 to 1 (Jaccard)."""
    words, others = _words(one), _words(other)
    return len(words & others) / max(len(words | others), 1)


def _words(rule: Rule) -> set[str]:
    return set(re.findall(r"\w+", " ".join([rule.title, rule.applies_when, *rule.queries]).casefold()))
