"""Runs the cases of expect.yaml with the code of the service, and prints their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from rule_server.cli.options import load_cli_settings, notify, print_json, progress
from rule_server.cli.terminal import print_table, print_text
from rule_server.errors import RulebookError, StartError

if TYPE_CHECKING:
    from pathlib import Path

    from rule_server.authoring.expectations import Expectation, Outcome
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.index import RuleIndex
    from rule_server.settings import Settings


def run_cases(
    expectations: Sequence[Expectation], index: RuleIndex, encoder: Encoder, settings: Settings
) -> list[Outcome]:
    """Returns the result of each case, in order."""
    from rule_server.authoring.expectations import check, split_runnable
    from rule_server.authoring.replay import replay

    runnable, skipped = split_runnable(expectations, index.rulebook)
    results = {outcome.expectation.place: outcome for outcome in skipped}
    questions = [expectation.case.question for expectation in runnable]
    if questions:
        with progress("expected results", len(questions)) as advance:
            [answers] = replay([index], encoder, settings, questions, advance)
        for expectation, answer in zip(runnable, answers, strict=True):
            results[expectation.place] = check(expectation, answer)
    return [results[expectation.place] for expectation in expectations]


def expect_command(
    text: str | None,
    rules: list[Path] | None,
    artefact: Path | None,
    *,
    draft: bool,
    as_json: bool,
) -> None:
    """Runs `query --expect`: all cases of the rules folders, or that of one question.

    Exits with 1 if one fails. Raises RuleServiceError.
    """
    settings = load_cli_settings(dir=rules, artefact=artefact, watch=False)
    from rule_server.authoring.expectations import read_expectations, unknown_ids
    from rule_server.observability import set_up_logs
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import load_or_build, preview_drafts, rules_folders

    folders = rules_folders(settings, Artefact(settings.artefact).current())
    if not folders:
        raise RulebookError("an index contains no expect.yaml: specify the rules folder with --rules")
    read = read_expectations(folders)
    if read.problems:
        raise RulebookError("\n".join(map(str, read.problems)))
    cases = _cases_of(text, read.cases, folders[-1])
    set_up_logs(settings)
    loaded = load_or_build(settings, notify, make_current=False, drafts=draft)
    loaded = preview_drafts(loaded) if draft else loaded
    unknown = unknown_ids(cases, {rule.id for rule in loaded.index.rulebook.rules})
    if unknown:
        raise RulebookError("\n".join(map(str, unknown)))
    outcomes = run_cases(cases, loaded.index, loaded.encoder, settings)
    if as_json:
        book = loaded.index.rulebook
        about = {"name": book.name, "version": book.version, "digest": book.digest}
        print_json({"rulebook": about} | outcomes_dict(outcomes))
    else:
        print_outcomes(outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _cases_of(text: str | None, cases: Sequence[Expectation], folder: Path) -> Sequence[Expectation]:
    from rule_server.authoring.expectations import EXPECT_FILE, question_key

    if text is None:
        if not cases:
            raise StartError(
                f"{folder / EXPECT_FILE} is missing: write `cases:` with a `question` and its rule"
            )
        return cases
    own = [case for case in cases if case.case.key == question_key(text)]
    if not own:
        raise StartError(f"no case has this question: add it to {folder / EXPECT_FILE}")
    return own


def outcomes_dict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns counts and cases for --json."""
    from rule_server.authoring.expectations import count_outcomes

    counts = count_outcomes(outcomes)
    return {"ok": not counts["failed"], **counts, "results": [outcome.as_dict() for outcome in outcomes]}


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Prints a table of all cases, then what is wrong with the failed ones."""
    rows = [("result", "case", "question", "expected", "found")]
    for outcome in outcomes:
        word = outcome.status.upper() if outcome.status == "failed" else outcome.status
        case = outcome.expectation.case
        found = ", ".join(outcome.found) or ("nothing" if outcome.status != "skipped" else outcome.reason)
        place = outcome.expectation.place
        rows.append((word, place, " ".join(case.question.split()), str(case), found))
    print_table(rows, cut=(2, 3, 4))
    for outcome in outcomes:
        if outcome.status == "failed":
            question = " ".join(outcome.expectation.case.question.split())
            print_text(f"{outcome.expectation.place}: {question[:80]!r} {outcome.reason}", indent="  ")
    print_text(describe_outcomes(outcomes))


def describe_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Returns the counts in words."""
    from rule_server.authoring.expectations import count_outcomes

    counts = count_outcomes(outcomes)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    return f"{counts['passed']} of {counts['cases']} expected results hold, {counts['failed']} fail{skipped}"
