"""Checks a rules folder: the command lint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from rule_server.cli.authoring.rulebooks import open_rulebook
from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    ProgressEncoder,
    Rules,
    load_cli_settings,
    notify,
    print_json,
)
from rule_server.errors import RulebookError

if TYPE_CHECKING:
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
            "disappeared or changed meaning.",
            metavar="RULEBOOK",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a rules folder and print every problem with its file and fix. Exits with 1 if there are problems.

    Example: ascl-rules lint --rules my-rules --against HEAD --json
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring.lint import lint_rules
    from rule_server.retrieval.build import rules_folders
    from rule_server.rulebook import list_names

    folders = rules_folders(settings)
    if not folders:
        raise RulebookError("there are no rules to check: specify a rules folder with --rules")
    before = open_rulebook(against, settings) if against is not None else None
    report = lint_rules(folders, settings.variables, search=search_check(settings), before=before)
    if report.ignored:
        notify(f"not part of the rulebook by their names: {list_names(report.ignored)}")
    if as_json:
        print_json(report.as_dict())
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        typer.echo(f"{report.rules} rules in {report.categories} categories, {len(report.problems)} problems")
    if not report.ok:
        raise typer.Exit(1)


def search_check(settings: Settings) -> Search | None:
    """Returns the lint checks that need vectors. Without an encoder, tells the user and returns None."""
    from rule_server.errors import ArtefactError
    from rule_server.retrieval.artefact import Artefact

    store = Artefact(settings.artefact)
    skipped = (
        "skipped: the checks that each rule matches its own example queries and not those of other rules"
    )
    try:
        current = store.current()
    except ArtefactError as error:
        notify(f"{skipped} ({error})")
        return None
    if current is None or not store.has_encoder(current.encoder):
        notify(f"{skipped} ({settings.artefact} contains no encoder: run `ascl-rules build` once)")
        return None
    fingerprint = current.encoder
    encoder = ProgressEncoder(fingerprint, lambda: store.encoder(fingerprint, settings.threads))

    def search(book: Rulebook, files: Mapping[tuple[str, str], str]) -> list[LintProblem]:
        from rule_server.authoring.lint.search import check_search
        from rule_server.retrieval.versions import index_for

        return check_search(index_for(book, store, encoder), encoder, files)

    return search
