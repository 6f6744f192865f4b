"""Expected results of questions (golden tests), from the file expect.yaml in each rules folder.

The file is not part of the rulebook: it changes neither the digest nor what is served. As with rules, a
folder adds its cases to those of the folders beneath it, and a case with the same question replaces theirs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rule_server.rulebook import (
    Folders,
    LintProblem,
    Rulebook,
    RuleFileError,
    layer_prefixes,
    read_yaml_file,
    resolve_layers,
)
from rule_server.rulebook.model import RuleId
from rule_server.schemas import MAX_SITUATION_CHARS, ConsultResponse

EXPECT_FILE = "expect.yaml"
MAX_CASES = 500
Status = Literal["ok", "failed", "skipped"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Ids = Annotated[list[RuleId], Field(max_length=20), BeforeValidator(_as_list)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Case(_Strict):
    """A question and the rules that it must find."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_SITUATION_CHARS)]
    first: RuleId | None = None
    """The rule that must be returned first."""
    includes: Ids = []
    """Rules that must be among those returned, in any order."""
    excludes: Ids = []
    """Rules that must not be returned."""
    nothing: bool = False
    """No rule may be returned."""

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if not (self.first or self.includes or self.excludes or self.nothing):
            raise ValueError("say what it expects: first, includes, excludes or nothing: true")
        if self.nothing and (self.first or self.includes):
            raise ValueError("keep either the rules that it expects or nothing: true")
        return self

    @property
    def key(self) -> str:
        """The question without regard to case and spaces."""
        return question_key(self.question)

    def __str__(self) -> str:
        parts = [f"first {self.first}"] if self.first else []
        parts += [f"with {id}" for id in self.includes] + [f"without {id}" for id in self.excludes]
        return ", ".join([*parts, *(["nothing"] if self.nothing else [])])


class _ExpectFile(_Strict):
    cases: list[Case] = Field(max_length=MAX_CASES)


@dataclass(frozen=True)
class Expectation:
    """A case and its place."""

    case: Case
    file: str
    """Name of the file, preceded by its folder's name if there are several."""
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Outcome:
    """Result of one case."""

    expectation: Expectation
    status: Status
    found: tuple[str, ...] = ()
    """Ids of the returned rules, in order."""
    reason: str = ""
    """The fault, or why the case is skipped."""

    def as_dict(self) -> dict[str, Any]:
        case = self.expectation.case.model_dump(exclude={"question"}, exclude_defaults=True)
        return {
            "file": self.expectation.file,
            "line": self.expectation.line,
            "question": self.expectation.case.question,
            "expected": case,
            "found": list(self.found),
            "status": self.status,
            "reason": self.reason,
        }

    def as_problem(self) -> LintProblem:
        """Returns a failed case as a problem of its file."""
        question = " ".join(self.expectation.case.question.split())[:80]
        problem = f"line {self.expectation.line}: {question!r} {self.reason}"
        fix = "change the rules, or the case if this answer is right"
        if self.expectation.case.nothing:
            # Rules are found by these texts.
            fix = f"word the title, `applies_when` and queries of {self.found[0]} more narrowly, or {fix}"
        return LintProblem.sanitized(self.expectation.file, problem, fix, self.expectation.line)


@dataclass(frozen=True)
class ExpectationsRead:
    """The cases that apply, and the problems of their files."""

    cases: list[Expectation]
    problems: list[LintProblem]


def question_key(question: str) -> str:
    """Returns a question without regard to case and spaces."""
    return " ".join(question.casefold().split())


def read_expectations(folders: Folders) -> ExpectationsRead:
    """Reads the cases of all layers, lowest first. A folder need not have any.

    Raises:
        RulebookError: a path is not a folder.
    """
    paths = resolve_layers(folders)
    cases: dict[str, Expectation] = {}
    problems: list[LintProblem] = []
    for folder, prefix in zip(paths, layer_prefixes(paths), strict=True):
        name = prefix + EXPECT_FILE
        try:
            found = _read_file(folder / EXPECT_FILE, name)
        except RuleFileError as error:
            problems += [LintProblem.sanitized(name, *fault) for fault in error.problems]
            continue
        own: dict[str, Expectation] = {}
        for expectation in found:
            key = expectation.case.key
            if key in own:
                problem = f"the question in line {expectation.line} is in line {own[key].line} too"
                problems.append(LintProblem.sanitized(name, problem, "keep one of the two", expectation.line))
            own[key] = expectation
        cases |= own
    return ExpectationsRead(list(cases.values()), problems)


def _read_file(file: Path, name: str) -> list[Expectation]:
    if not file.is_symlink() and not file.exists():
        return []
    parsed, lines = read_yaml_file(file, _ExpectFile)
    return [Expectation(case, name, lines.get(("cases", at), 1)) for at, case in enumerate(parsed.cases)]


def unknown_ids(expectations: Iterable[Expectation], known: Iterable[str]) -> list[LintProblem]:
    """Finds cases that name a rule which does not exist."""
    ids = set(known)
    problems = []
    for expectation in expectations:
        case = expectation.case
        for id in dict.fromkeys([case.first or "", *case.includes, *case.excludes]):
            if id and id not in ids:
                near = difflib.get_close_matches(id, ids, 1)
                fix = f"write {near[0]}" if near else "name the id of a rule"
                problem = f"the case in line {expectation.line} names {id}, which is not a rule"
                problems.append(LintProblem.sanitized(expectation.file, problem, fix, expectation.line))
    return problems


def split_runnable(
    expectations: Sequence[Expectation], rulebook: Rulebook
) -> tuple[list[Expectation], list[Outcome]]:
    """Returns the cases to ask, and those to skip because a rule that they expect is not served."""
    status = {rule.id: rule.status for rule in rulebook.rules if not rule.lang}
    runnable, skipped = [], []
    for expectation in expectations:
        case = expectation.case
        absent = next(
            (id for id in [case.first or "", *case.includes] if id and id not in rulebook.served), None
        )
        if absent is None:
            runnable.append(expectation)
        else:
            what = {"draft": "a draft", "retired": "retired"}.get(status.get(absent, ""), "not a rule")
            skipped.append(Outcome(expectation, "skipped", reason=f"{absent} is {what}"))
    return runnable, skipped


def check(expectation: Expectation, response: ConsultResponse) -> Outcome:
    """Compares a response with its case."""
    case, found = expectation.case, tuple(rule.id for rule in response.rules)
    wrong = []
    if case.nothing and found:
        wrong.append("must find nothing")
    if case.first and found[:1] != (case.first,):
        wrong.append(f"must find {case.first} first")
    wrong += [f"must find {id}" for id in case.includes if id not in found]
    wrong += [f"must not find {id}" for id in case.excludes if id in found]
    if not wrong:
        return Outcome(expectation, "ok", found)
    reason = f"{', '.join(wrong)}, but finds {', '.join(found) or 'nothing'}"
    return Outcome(expectation, "failed", found, reason)


def count_outcomes(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """Returns the number of cases, in total and by status."""
    statuses = [outcome.status for outcome in outcomes]
    return {
        "cases": len(statuses),
        "passed": statuses.count("ok"),
        "failed": statuses.count("failed"),
        "skipped": statuses.count("skipped"),
    }
