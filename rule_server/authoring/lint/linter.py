"""Lints a rulebook: faults that prevent serving it, and those that a reviewer would reject."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rule_server.authoring.expectations import read_expectations, unknown_ids
from rule_server.authoring.lint.ids import check_ids
from rule_server.authoring.lint.links import check_links
from rule_server.rulebook import (
    Category,
    Folders,
    LintProblem,
    ReadResult,
    Rule,
    Rulebook,
    describe_contents,
    read_folders,
)

SHARED_PROSE = 0.4
"""Overlap of three-word runs (Jaccard) from which one rule's prose is a copy of another's. Rules with
different subjects overlap up to 0.16."""

# A rule is guidance for a reader. Text that addresses the model's machinery does not belong in it.
_COMMAND = re.compile(
    r"\b(ignore|disregard|forget|override|bypass) (all |any |the |your |these |those |my |of )*"
    r"(previous|prior|above|earlier|preceding|existing|system|safety|other)\b"
    r".{0,20}\b(instruction|prompt|rule|message|guideline|context|polic)"
    r"|\bignore (all |any |the |your )*(previous|prior|above|earlier|preceding)\b"
    r"|\byou are now\b|\bfrom now on,? you\b|\bpretend (that )?you are\b|\bnew (system )?instructions?:"
    r"|\b(reveal|print|repeat|output|show) (the |your )*(system|hidden|initial) (prompt|message|instr)"
    r"|\b(do not|don't|never) (tell|inform|mention (it )?to) the user\b"
    r"|(^|\n)\s*(system|assistant|user|human|developer)\s*:"
    r"|</?\|?\w+\|?>|\[/?INST\]|<<SYS>>|<\|"
    r"|\b(call|invoke|use) the (tool|function) \w",
    re.IGNORECASE,
)

Search = Callable[[Rulebook, Mapping[tuple[str, str], str]], list[LintProblem]]
"""Runs `authoring.lint.search.check_search` on a rulebook, given the file of each rule."""


@dataclass(frozen=True)
class LintReport:
    """Counts and problems. `ok` means that there are no problems."""

    rules: int
    categories: int
    problems: list[LintProblem]
    ignored: tuple[str, ...] = ()
    """Files and folders that are not part of the rulebook by their names."""
    contents: str = ""
    """Numbers of rules and categories in words."""
    searched: bool = False
    """Whether the checks that need vectors ran."""

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
    folders: Folders,
    variables: Mapping[str, str] | None = None,
    *,
    today: datetime.date | None = None,
    search: Search | None = None,
    before: Rulebook | None = None,
) -> LintReport:
    """Checks a rules folder, or several as layers.

    Args:
        search: checks that need vectors; None skips them.
        before: an earlier rulebook, whose ids must keep their meaning.

    Raises:
        RulebookError: the folder does not exist.
    """
    result = read_folders(folders, variables)
    book, broken = result.readable, result.broken
    problems = list(result.problems)
    if book is None:
        return LintReport(0, 0, problems, result.ignored)
    expected = read_expectations(folders)
    problems += _check_rules(book, result, today or datetime.datetime.now(datetime.UTC).date())
    problems += check_links(book, result.files, broken)
    problems += _check_copies(book, result)
    problems += expected.problems
    problems += unknown_ids(expected.cases, {rule.id for rule in book.rules} | broken)
    if before is not None:
        problems += check_ids(before, book, broken)
    # Without the rules of broken files, questions find other rules.
    searched = search is not None and result.rulebook is not None
    if searched and search is not None:
        problems += search(book, result.files)
    rules = {rule.id for rule in book.rules} | {id for id in broken if "." in id}
    categories = {category.id for category in book.categories} | {id for id in broken if "." not in id}
    contents = describe_contents(book, broken)
    return LintReport(len(rules), len(categories), problems, result.ignored, contents, searched)


def overdue(rulebook: Rulebook, today: datetime.date) -> list[Rule]:
    """Returns the served rules and translations whose review date has passed."""
    served = [rule for rule in rulebook.rules if rule.status == "active" and rule.id in rulebook.served]
    return [rule for rule in served if rule.review_by < today]


def _check_rules(rulebook: Rulebook, result: ReadResult, today: datetime.date) -> list[LintProblem]:
    problems = []
    by_query: dict[str, Rule] = {}
    late = {(rule.id, rule.lang) for rule in overdue(rulebook, today)}
    for rule in rulebook.rules:
        if rule.status == "retired":
            continue
        file = result.files[rule.id, rule.lang]
        if (rule.id, rule.lang) in late:
            problem = f"its review was due on {rule.review_by}"
            problems.append(
                LintProblem.sanitized(file, problem, f"{rule.owner}: review it and set a new `review_by`")
            )
        if _COMMAND.search("\n".join(_visible_texts(rule))):
            problem = "its text reads like a command to the model's machinery"
            problems.append(LintProblem.sanitized(file, problem, "describe the guidance in plain words"))
        original = rulebook.served.get(rule.id)
        if rule.lang and original is not None and rule.stance != original.stance:
            problem = f"its stance is `{rule.stance}`, that of the rule it translates `{original.stance}`"
            problems.append(
                LintProblem.sanitized(file, problem, "a translation says the same: give both one stance")
            )
        for query in rule.queries:
            other = by_query.setdefault(f"{rule.lang} {query.casefold()}", rule)
            if other is not rule:
                problem = f"the query {query!r} is in {other.id} too"
                problems.append(LintProblem.sanitized(file, problem, "keep it in the rule that it is about"))
    return problems + list(_check_categories(rulebook, result))


def _check_categories(rulebook: Rulebook, result: ReadResult) -> Iterator[LintProblem]:
    """Finds categories without an `answer` rule, and commands in categories.

    A category of drafts needs no `answer` rule, and one with a file that cannot be read may have one.
    """
    answering = {rule.category for rule in rulebook.served.values() if rule.stance == "answer"}
    served = {rule.category for rule in rulebook.served.values()}
    drafted = {rule.category for rule in rulebook.rules if rule.status == "draft"}
    unsure = {id.partition(".")[0] for id in result.broken}
    for category in rulebook.categories:
        file = result.files[category.id, ""]
        if category.id not in answering | unsure and (category.id in served or category.id not in drafted):
            problem = "no active rule of this category has the stance `answer`"
            yield LintProblem.sanitized(file, problem, "add one that says what is fine")
        if _COMMAND.search(_category_text(category)):
            problem = "its text reads like a command to the model's machinery"
            yield LintProblem.sanitized(file, problem, "describe the category in plain words")


def _visible_texts(rule: Rule) -> list[str]:
    """Returns the texts that models read. Excludes queries and examples, because they quote users."""
    return [rule.title, rule.applies_when, rule.not_when or "", rule.fine, rule.not_fine, rule.how_to_answer]


def _category_text(category: Category) -> str:
    return "\n".join([category.title, category.summary, category.body])


def _check_copies(rulebook: Rulebook, result: ReadResult) -> Iterator[LintProblem]:
    """Finds rules whose prose is nearly that of another rule in the same language."""
    runs: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    holding: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for rule in rulebook.rules:
        if rule.status == "retired":
            continue
        own = _runs(rule)
        shared = Counter(key for run in own for key in holding.get(run, ()) if key[1] == rule.lang)
        for other, count in sorted(shared.items()):
            if count / len(own | runs[other]) >= SHARED_PROSE:
                problem = f"its prose is nearly that of {other[0]}"
                fix = "join the two rules, or say what sets this one apart"
                yield LintProblem.sanitized(result.files[rule.id, rule.lang], problem, fix)
        runs[rule.id, rule.lang] = own
        for run in own:
            holding.setdefault(run, []).append((rule.id, rule.lang))


def _runs(rule: Rule) -> set[tuple[str, ...]]:
    """Returns the three-word runs of a rule's text."""
    words = re.findall(r"\w+", rule.text.casefold())
    return set(zip(words, words[1:], words[2:], strict=False))
