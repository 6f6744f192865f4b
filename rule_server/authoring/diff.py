"""What changed between two rulebooks, rule by rule, and which questions now get other rules."""

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
    """A rule that both rulebooks hold, in other words or with other keys."""

    key: Key
    title: str
    changed: list[str]
    """Keys and sections that differ: `fine`, `not_fine`, `how_to_answer`, `queries`, ..."""
    stance: tuple[str, str] | None
    """Before and after, where it changed."""
    status: tuple[str, str] | None

    def as_dict(self) -> dict[str, Any]:
        value: dict[str, Any] = _head(self.key, self.title) | {"changed": self.changed}
        for name, pair in (("stance", self.stance), ("status", self.status)):
            if pair is not None:
                value[name] = {"before": pair[0], "after": pair[1]}
        return value


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that the two rulebooks answer by other rules, or by the same in another order."""

    question: Question
    before: ConsultResponse
    after: ConsultResponse

    def as_dict(self) -> dict[str, Any]:
        asked = {"file": self.question.file, "line": self.question.line, "kind": self.question.kind}
        return asked | {
            "question": self.question.text,
            "before": {"verdict": self.before.verdict, "rules": ids(self.before)},
            "after": {"verdict": self.after.verdict, "rules": ids(self.after)},
        }


@dataclass(frozen=True)
class RulebookDiff:
    """Differences of content, in the order of ids."""

    added: list[Rule] = field(default_factory=list)
    removed: list[Rule] = field(default_factory=list)
    changed: list[ChangedRule] = field(default_factory=list)
    categories_added: list[str] = field(default_factory=list)
    categories_removed: list[str] = field(default_factory=list)
    categories_changed: dict[str, list[str]] = field(default_factory=dict)
    """Category id to the keys that differ."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "rules": {
                "added": [_entry(rule) for rule in self.added],
                "removed": [_entry(rule) for rule in self.removed],
                "changed": [change.as_dict() for change in self.changed],
            },
            "categories": {
                "added": self.categories_added,
                "removed": self.categories_removed,
                "changed": self.categories_changed,
            },
        }

    def lines(self) -> list[tuple[str, str, str]]:
        """(sign, what, how) of every difference, for a table."""
        lines = [("+", f"{id}/", "category added") for id in self.categories_added]
        lines += [("-", f"{id}/", "category removed") for id in self.categories_removed]
        lines += [("~", f"{id}/", ", ".join(keys)) for id, keys in self.categories_changed.items()]
        lines += [
            ("+", _named(_key(rule)), f"{rule.stance}, {rule.status}: {rule.title}") for rule in self.added
        ]
        lines += [
            ("-", _named(_key(rule)), f"{rule.stance}, {rule.status}: {rule.title}") for rule in self.removed
        ]
        for change in self.changed:
            pairs = (("stance", change.stance), ("status", change.status))
            how = [f"{name} {pair[0]} -> {pair[1]}" for name, pair in pairs if pair is not None]
            how += [name for name in change.changed if name not in ("stance", "status")]
            lines.append(("~", _named(change.key), ", ".join(how)))
        return lines


def diff_rulebooks(before: Rulebook, after: Rulebook) -> RulebookDiff:
    """What it takes to make `after` of `before`; translations count as rules of their own."""
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
    """The questions for which other rules, or the same in another order, would come back."""
    asked = zip(questions, before, after, strict=True)
    return [ChangedAnswer(question, a, b) for question, a, b in asked if ids(a) != ids(b)]


def ids(response: ConsultResponse) -> list[str]:
    """Ids of the rules of an answer, in its order."""
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


def _named(key: Key) -> str:
    return f"{key[0]} ({key[1]})" if key[1] else key[0]


def _head(key: Key, title: str) -> dict[str, Any]:
    return {"id": key[0], **({"lang": key[1]} if key[1] else {}), "title": title}


def _entry(rule: Rule) -> dict[str, Any]:
    return _head(_key(rule), rule.title) | {"stance": rule.stance, "status": rule.status}
