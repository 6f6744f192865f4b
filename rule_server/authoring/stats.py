"""What consultations say about a rulebook: which rules are used, which never, and what finds nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rule_server.authoring.questions import Question
from rule_server.rulebook import Rulebook


@dataclass(frozen=True)
class Usage:
    """Counts over consultations; a rule is counted once a consultation."""

    consultations: int
    nothing: int
    """Consultations that found no rule."""
    rules: dict[str, int]
    """Rule id to how often it came back; every served rule is here, so a never consulted one has 0."""
    first: dict[str, int]
    """Rule id to how often it came first."""
    categories: dict[str, int]
    """Category to consultations that brought a rule of it; every category is here."""
    unknown: dict[str, int]
    """Ids that came back and that the rulebook does not serve (any more)."""
    kinds: dict[str, tuple[int, int]]
    """Kind to its consultations and how many of those found nothing; `` where a row has no kind."""
    digests: dict[str, int]
    """Digest to how many rows say that this rulebook answered."""
    unanswered: list[tuple[str, int]]
    """Questions that found nothing, the most frequent first."""

    @property
    def never(self) -> list[str]:
        """Served rules that no consultation brought."""
        return [id for id, count in self.rules.items() if not count]

    def as_dict(self) -> dict[str, Any]:
        return {
            "consultations": self.consultations,
            "no_applicable_rule": self.nothing,
            "rules": [
                {"id": id, "consulted": count, "first": self.first[id]} for id, count in _ranked(self.rules)
            ],
            "categories": [{"id": id, "consulted": count} for id, count in _ranked(self.categories)],
            "never": self.never,
            "unknown": self.unknown,
            "kinds": {
                kind: {"consultations": every, "no_applicable_rule": nothing}
                for kind, (every, nothing) in self.kinds.items()
            },
            "digests": self.digests,
            "unanswered": [{"question": text, "times": times} for text, times in self.unanswered],
        }

    def rule_table(self) -> list[tuple[str, str, str]]:
        """Header and a row a consulted rule: id, times consulted, times first."""
        used = [(id, count) for id, count in _ranked(self.rules) if count]
        return [("rule", "consulted", "first"), *((id, str(n), str(self.first[id])) for id, n in used)]

    def category_table(self) -> list[tuple[str, str]]:
        """Header and a row a category: id, times consulted."""
        return [("category", "consulted"), *((id, str(count)) for id, count in _ranked(self.categories))]

    def kind_table(self) -> list[tuple[str, str, str]]:
        """Header and a row a kind: consultations, and how many of them found nothing."""
        rows = ((kind or "(none)", str(n), str(nothing)) for kind, (n, nothing) in self.kinds.items())
        return [("kind", "consultations", "found nothing"), *rows]


def summarize_usage(
    rulebook: Rulebook, questions: Sequence[Question], answers: Sequence[Sequence[str]]
) -> Usage:
    """Count consultations: `answers` holds, for each question, the ids of the rules that came back."""
    rules: Counter[str] = Counter()
    first: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    every: Counter[str] = Counter()
    empty: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    for question, found in zip(questions, answers, strict=True):
        rules.update(set(found))
        first.update(found[:1])
        categories.update({id.partition(".")[0] for id in found})
        every[question.kind or ""] += 1
        if not found:
            empty[question.kind or ""] += 1
            if question.text:
                unanswered[" ".join(question.text.split())] += 1
    served = list(rulebook.served)
    return Usage(
        consultations=len(questions),
        nothing=sum(empty.values()),
        rules={id: rules[id] for id in served},
        first={id: first[id] for id in served},
        categories={area.id: categories[area.id] for area in rulebook.categories},
        unknown={id: rules[id] for id in sorted(rules) if id not in rulebook.served},
        kinds={kind: (every[kind], empty[kind]) for kind in sorted(every)},
        digests=dict(Counter(question.digest for question in questions if question.digest)),
        unanswered=unanswered.most_common(),
    )


def _ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
