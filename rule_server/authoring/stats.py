"""Usage statistics of a rulebook: returned and unused rules, and questions that match no rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rule_server.authoring.questions import Question
from rule_server.retrieval.relevance.language import detect_language, is_known
from rule_server.rulebook import Rulebook


@dataclass(frozen=True)
class Usage:
    """Counts over consultations. A rule counts once per consultation."""

    consultations: int
    nothing: int
    """Consultations that matched no rule."""
    unsupported_language: int
    """Of those, the ones in a language that the encoders do not know."""
    rules: dict[str, int]
    """Number of times each served rule was returned, including 0, by id."""
    first: dict[str, int]
    """Number of times each rule was returned first, by id."""
    categories: dict[str, int]
    """Number of consultations that returned a rule of each category, including 0."""
    unknown: dict[str, int]
    """Returned ids that the rulebook does not serve (any more)."""
    kinds: dict[str, tuple[int, int]]
    """Consultations, and those that matched no rule, by kind; `""` for rows without a kind."""
    digests: dict[str, int]
    """Number of rows by the digest of the rulebook that answered."""
    unanswered: list[tuple[str, int]]
    """Questions that matched no rule, most frequent first."""

    @property
    def never(self) -> list[str]:
        """Served rules that no consultation returned."""
        return [id for id, count in self.rules.items() if not count]

    def as_dict(self) -> dict[str, Any]:
        return {
            "consultations": self.consultations,
            "no_applicable_rule": self.nothing,
            "unsupported_language": self.unsupported_language,
            "rules": [
                {"id": id, "consulted": count, "first": self.first[id]} for id, count in _ranked(self.rules)
            ],
            "categories": [{"id": id, "consulted": count} for id, count in _ranked(self.categories)],
            "never": self.never,
            "unknown": self.unknown,
            "kinds": {
                kind: {"consultations": total, "no_applicable_rule": nothing}
                for kind, (total, nothing) in self.kinds.items()
            },
            "digests": self.digests,
            "unanswered": [{"question": text, "times": times} for text, times in self.unanswered],
        }

    def rule_table(self) -> list[tuple[str, str, str]]:
        """Returns a header and one row per consulted rule: id, times consulted, times first."""
        used = [(id, count) for id, count in _ranked(self.rules) if count]
        return [("rule", "consulted", "first"), *((id, str(n), str(self.first[id])) for id, n in used)]

    def category_table(self) -> list[tuple[str, str]]:
        """Returns a header and one row per category: id, times consulted."""
        return [("category", "consulted"), *((id, str(count)) for id, count in _ranked(self.categories))]

    def kind_table(self) -> list[tuple[str, str, str]]:
        """Returns a header and one row per kind: consultations, and those that matched no rule."""
        rows = ((kind or "(none)", str(n), str(nothing)) for kind, (n, nothing) in self.kinds.items())
        return [("kind", "consultations", "no match"), *rows]


def summarize_usage(
    rulebook: Rulebook, questions: Sequence[Question], answers: Sequence[Sequence[str]]
) -> Usage:
    """Counts consultations. `answers` lists the IDs of the returned rules for each question."""
    rules: Counter[str] = Counter()
    first: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    empty: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    unsupported = 0
    for question, returned in zip(questions, answers, strict=True):
        rules.update(set(returned))
        first.update(returned[:1])
        categories.update({id.partition(".")[0] for id in returned})
        by_kind[question.kind or ""] += 1
        if not returned:
            empty[question.kind or ""] += 1
            unsupported += _is_unsupported(question)
            if question.text:
                unanswered[" ".join(question.text.split())] += 1
    served = list(rulebook.served)
    return Usage(
        consultations=len(questions),
        nothing=sum(empty.values()),
        unsupported_language=unsupported,
        rules={id: rules[id] for id in served},
        first={id: first[id] for id in served},
        categories={category.id: categories[category.id] for category in rulebook.categories},
        unknown={id: rules[id] for id in sorted(rules) if id not in rulebook.served},
        kinds={kind: (by_kind[kind], empty[kind]) for kind in sorted(by_kind)},
        digests=dict(Counter(question.digest for question in questions if question.digest)),
        unanswered=unanswered.most_common(),
    )


def _is_unsupported(question: Question) -> bool:
    """Returns whether the rules were not searched because of the language of a question."""
    if question.reason is not None or not question.text:
        return question.reason == "unsupported_language"
    return not is_known(detect_language(question.text))


def _ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
