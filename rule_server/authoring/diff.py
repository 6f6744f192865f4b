"""Compares two rulebooks rule by rule, and the rules that they return for given questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rule_server.authoring.questions import Question
from rule_server.rulebook import Category, Rule, Rulebook
from rule_server.schemas import ConsultResponse

Key = tuple[str, str]
"""Id and language."""


@dataclass(frozen=True)
class ChangedRule:
    """A rule of both rulebooks with a different text or other fields."""

    key: Key
    title: str
    changed: list[str]
    """Fields and sections that differ: `fine`, `not_fine`, `how_to_answer`, `queries`, ..."""
    stance: tuple[str, str] | None
    """Stance before and after; None if unchanged."""
    status: tuple[str, str] | None

    def as_dict(self) -> dict[str, Any]:
        value: dict[str, Any] = _rule_header(self.key, self.title) | {"changed": self.changed}
        for name, pair in (("stance", self.stance), ("status", self.status)):
            if pair is not None:
                value[name] = {"before": pair[0], "after": pair[1]}
        return value


@dataclass(frozen=True)
class ChangedAnswer:
    """A question for which the rulebooks return different rules, or the same rules in a different order."""

    question: Question
    before: ConsultResponse
    after: ConsultResponse

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.question.file,
            "line": self.question.line,
            "kind": self.question.kind,
            "question": self.question.text,
            "before": {"verdict": self.before.verdict, "rules": rule_ids(self.before)},
            "after": {"verdict": self.after.verdict, "rules": rule_ids(self.after)},
        }


@dataclass(frozen=True)
class RulebookDiff:
    """Differences between two rulebooks, sorted by id."""

    added: list[Rule] = field(default_factory=list)
    removed: list[Rule] = field(default_factory=list)
    changed: list[ChangedRule] = field(default_factory=list)
    categories_added: list[str] = field(default_factory=list)
    categories_removed: list[str] = field(default_factory=list)
    categories_changed: dict[str, list[str]] = field(default_factory=dict)
    """Fields that differ, by category id."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "rules": {
                "added": [_rule_summary(rule) for rule in self.added],
                "removed": [_rule_summary(rule) for rule in self.removed],
                "changed": [change.as_dict() for change in self.changed],
            },
            "categories": {
                "added": self.categories_added,
                "removed": self.categories_removed,
                "changed": self.categories_changed,
            },
        }

    def lines(self) -> list[tuple[str, str, str]]:
        """Returns (sign, id, description) of every difference, for a table."""
        lines = [("+", f"{id}/", "category added") for id in self.categories_added]
        lines += [("-", f"{id}/", "category removed") for id in self.categories_removed]
        lines += [("~", f"{id}/", ", ".join(keys)) for id, keys in self.categories_changed.items()]
        lines += [
            ("+", _label(_key(rule)), f"{rule.stance}, {rule.status}: {rule.title}") for rule in self.added
        ]
        lines += [
            ("-", _label(_key(rule)), f"{rule.stance}, {rule.status}: {rule.title}") for rule in self.removed
        ]
        for change in self.changed:
            pairs = (("stance", change.stance), ("status", change.status))
            details = [f"{name} {pair[0]} -> {pair[1]}" for name, pair in pairs if pair is not None]
            details += [name for name in change.changed if name not in ("stance", "status")]
            lines.append(("~", _label(change.key), ", ".join(details)))
        return lines


def diff_rulebooks(before: Rulebook, after: Rulebook) -> RulebookDiff:
    """Returns the changes from `before` to `after`. Translations count as separate rules."""
    old, new = ({_key(rule): rule for rule in book.rules} for book in (before, after))
    old_areas, new_areas = ({area.id: area for area in book.categories} for book in (before, after))
    areas = {id: _differing(old_areas[id], new_areas[id]) for id in old_areas if id in new_areas}
    return RulebookDiff(
        added=[new[key] for key in new if key not in old],
        removed=[old[key] for key in old if key not in new],
        changed=[_change(key, old[key], new[key]) for key in old if key in new and old[key] != new[key]],
        categories_added=[id for id in new_areas if id not in old_areas],
        categories_removed=[id for id in old_areas if id not in new_areas],
        categories_changed={id: keys for id, keys in areas.items() if keys},
    )


def changed_answers(
    questions: Sequence[Question], before: Sequence[ConsultResponse], after: Sequence[ConsultResponse]
) -> list[ChangedAnswer]:
    """Returns the questions whose rules, or their order, differ between two lists of responses."""
    rows = zip(questions, before, after, strict=True)
    return [ChangedAnswer(question, a, b) for question, a, b in rows if rule_ids(a) != rule_ids(b)]


def rule_ids(response: ConsultResponse) -> list[str]:
    """Returns the ids of the rules of a response, in its order."""
    return [rule.id for rule in response.rules]


def _change(key: Key, old: Rule, new: Rule) -> ChangedRule:
    return ChangedRule(
        key=key,
        title=new.title,
        changed=_differing(old, new),
        stance=(old.stance, new.stance) if old.stance != new.stance else None,
        status=(old.status, new.status) if old.status != new.status else None,
    )


def _differing(old: Rule | Category, new: Rule | Category) -> list[str]:
    return [name for name in type(old).model_fields if getattr(old, name) != getattr(new, name)]


def _key(rule: Rule) -> Key:
    return rule.id, rule.lang


def _label(key: Key) -> str:
    return f"{key[0]} ({key[1]})" if key[1] else key[0]


def _rule_header(key: Key, title: str) -> dict[str, Any]:
    return {"id": key[0], **({"lang": key[1]} if key[1] else {}), "title": title}


def _rule_summary(rule: Rule) -> dict[str, Any]:
    return _rule_header(_key(rule), rule.title) | {"stance": rule.stance, "status": rule.status}
