"""Compares rulebooks and rolls back to an earlier one: the commands diff and rollback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rule_server.cli.authoring.expectations import outcomes_dict, run_cases
from rule_server.cli.authoring.rulebooks import answers_of, find_source, rulebook_dict, stored_encoder
from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    Rules,
    load_cli_settings,
    notify,
    print_json,
)
from rule_server.cli.terminal import print_table
from rule_server.errors import RulebookError

if TYPE_CHECKING:
    from rule_server.authoring import ChangedAnswer
    from rule_server.authoring.expectations import Outcome
    from rule_server.authoring.sources import Source
    from rule_server.retrieval.versions import StoredRulebook
    from rule_server.settings import Settings


def diff(
    before: Annotated[str, typer.Argument(help="Folder, digest or git revision.", metavar="A")],
    after: Annotated[str, typer.Argument(help="Folder, digest or git revision.", metavar="B")],
    questions: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON Lines with `situation` or `prompt`; lists the questions that would match different "
            "rules. Repeatable (default: no questions).",
            metavar="FILE",
        ),
    ] = None,
    rules: Rules = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare rulebook A with rulebook B, and list the questions that would match different rules.

    A and B are folders, digests or digest prefixes of stored rulebooks, or git revisions: `HEAD~1` reads the
    folder of the other argument (else --rules, else `rules`), `HEAD~1:path` reads another folder.
    Both are asked the cases of expect.yaml in B. Exits with 1 if B fails one.

    Example: ascl-rules diff HEAD~1 rules --questions consultations.jsonl
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring import changed_answers, diff_rulebooks, read_questions
    from rule_server.cli.authoring.tables import print_changed_answers, print_compared, print_diff

    rows, bad = read_questions(questions or [])
    folders = [Path(spec) for spec in (before, after) if spec and Path(spec).is_dir()]
    default_folder = folders[0] if len(folders) == 1 and not rules else None
    sources = [find_source(spec, settings, default_folder) for spec in (before, after)]
    old, new = (source.rulebook for source in sources)
    difference, outcomes = diff_rulebooks(old, new), _run_expected(sources, settings)
    changed: list[ChangedAnswer] = []
    if rows:
        changed = changed_answers(rows, *answers_of([old, new], rows, settings))
    if as_json:
        value = {
            "a": rulebook_dict(old, before),
            "b": rulebook_dict(new, after),
            "same": old.digest == new.digest,
        }
        value |= difference.as_dict()
        if questions:
            value["questions"] = {
                "asked": len(rows),
                "changed": [change.as_dict() for change in changed],
                "bad_lines": [line.as_dict() for line in bad],
            }
        if outcomes:
            value["expectations"] = {"a": outcomes_dict(outcomes[0]), "b": outcomes_dict(outcomes[1])}
        print_json(value)
    else:
        print_diff(difference, (before, old), (after, new))
        if questions:
            print_changed_answers(rows, changed, bad)
        if outcomes:
            print_compared(*outcomes)
    if outcomes is not None and any(outcome.status == "failed" for outcome in outcomes[1]):
        raise typer.Exit(1)


def _run_expected(
    sources: Sequence[Source], settings: Settings
) -> tuple[list[Outcome], list[Outcome]] | None:
    """Returns the results of both rulebooks for the cases of B, or those of A if B is a stored rulebook.

    None if there are no cases, or no encoder to ask with.
    """
    from rule_server.authoring.expectations import unknown_ids
    from rule_server.retrieval.versions import index_for

    old, new = sources
    own = old if new.kind == "digest" else new
    known = {rule.id for source in sources for rule in source.rulebook.rules}
    problems = [*own.expected.problems, *unknown_ids(own.expected.cases, known)]
    if problems:
        raise RulebookError("\n".join(map(str, problems)))
    cases = own.expected.cases
    opened = stored_encoder(settings, f"{len(cases)} expected results") if cases else None
    if opened is None:
        return None
    store, encoder = opened
    before, after = (
        run_cases(cases, index_for(source.rulebook, store, encoder), encoder, settings) for source in sources
    )
    return before, after


def rollback(
    digest: Annotated[
        str | None, typer.Argument(help="Digest or digest prefix; omit to list stored rulebooks.")
    ] = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """Roll back to an earlier rulebook, which `serve` uses when started without a rules folder.

    Run `ascl-rules build` to switch back. The index keeps the last 50 rulebooks from `build` and 10 others.

    Example: ascl-rules rollback 3f9a2c41
    """
    settings = load_cli_settings(artefact=artefact)
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.versions import list_versions, roll_back

    store = Artefact(settings.artefact)
    if digest is None:
        versions = list_versions(store)
        if as_json:
            print_json([version.as_dict() for version in versions])
        elif versions:
            header = ("", "digest", "name", "version", "rules", "built (UTC)", "")
            print_table([header, *map(_version_row, versions)], cut=(2, 3))
        else:
            typer.echo(f"{settings.artefact} has no rulebook: run `ascl-rules build`")
        return
    entry = roll_back(store, digest)
    if as_json:
        print_json(entry.as_dict() | {"current": True})
    else:
        typer.echo(f"{entry.name} {entry.version} {entry.digest[:12]} is now current in {settings.artefact}")
    notify(
        "restart the service without --rules to serve it; a service with a rules folder keeps serving that "
        "folder, so restore the rules there from version control"
    )
    if settings.dir:
        notify("ASCL_RULES_DIR is set, so `serve` would use that rules folder instead: unset it")


def _version_row(entry: StoredRulebook) -> tuple[str, ...]:
    mark, published = "*" if entry.current else "", "published" if entry.published else ""
    return mark, entry.digest[:12], entry.name, entry.version, str(entry.rules), entry.built, published
