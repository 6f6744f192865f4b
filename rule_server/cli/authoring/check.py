"""Checks a rules folder: the command lint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rule_server.cli.authoring.expectations import describe_outcomes, run_cases
from rule_server.cli.authoring.rulebooks import open_rulebook, stored_encoder
from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    Rules,
    load_cli_settings,
    notify,
    print_json,
)
from rule_server.cli.terminal import print_text
from rule_server.errors import RulebookError

if TYPE_CHECKING:
    from rule_server.authoring.expectations import Expectation, Outcome
    from rule_server.authoring.lint import Search
    from rule_server.rulebook import LintProblem, Rulebook
    from rule_server.settings import Settings


def lint(
    rules: Rules = None,
    artefact: ArtefactDir = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Earlier rulebook to compare with (folder, digest or git revision); reports IDs that "
            "disappeared or changed meaning (default: no comparison).",
            metavar="RULEBOOK",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a rules folder and print every problem with its file and fix. Exits with 1 if there are problems.

    The cases of expect.yaml are asked too, if the index contains an encoder.

    Example: ascl-rules lint --rules my-rules --against HEAD --json
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring.expectations import read_expectations
    from rule_server.authoring.lint import lint_rules
    from rule_server.retrieval.build import rules_folders
    from rule_server.rulebook import list_names

    folders = rules_folders(settings)
    if not folders:
        raise RulebookError("there are no rules to check: specify a rules folder with --rules")
    before = open_rulebook(against, settings) if against is not None else None
    cases = read_expectations(folders).cases
    outcomes: list[Outcome] = []
    report = lint_rules(
        folders, settings.variables, search=_search_check(settings, cases, outcomes), before=before
    )
    if report.ignored:
        notify(f"not part of the rulebook by their names: {list_names(report.ignored)}")
    if as_json:
        print_json(report.as_dict() | (_cases_dict(cases, outcomes) if cases else {}))
    else:
        for problem in report.problems:
            print_text(str(problem), indent="  ")
        count = len(report.problems)
        print_text(f"{report.contents}, {count} problem{'' if count == 1 else 's'}")
        if outcomes:
            print_text(describe_outcomes(outcomes))
    if not report.ok:
        raise typer.Exit(1)


def _search_check(settings: Settings, cases: Sequence[Expectation], outcomes: list[Outcome]) -> Search | None:
    """Returns the lint checks that need vectors. Without an encoder, tells the user and returns None.

    When they run, the results of the cases are appended to `outcomes`.
    """
    skipped = "the checks that each rule matches its own example queries and not those of other rules" + (
        f", and {len(cases)} expected results" if cases else ""
    )
    opened = stored_encoder(settings, skipped)
    if opened is None:
        return None
    store, encoder = opened

    def search(book: Rulebook, files: Mapping[tuple[str, str], str]) -> list[LintProblem]:
        from rule_server.authoring.lint.search import check_search
        from rule_server.retrieval.versions import index_for

        index = index_for(book, store, encoder)
        outcomes.extend(run_cases(cases, index, encoder, settings))
        failed = [outcome.as_problem() for outcome in outcomes if outcome.status == "failed"]
        return check_search(index, encoder, files) + failed

    return search


def _cases_dict(cases: Sequence[Expectation], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the counts of the cases. If they were not asked, all count as skipped."""
    from rule_server.authoring.expectations import count_outcomes

    unasked = {"cases": len(cases), "passed": 0, "failed": 0, "skipped": len(cases)}
    return {"expectations": count_outcomes(outcomes) if outcomes else unasked}
