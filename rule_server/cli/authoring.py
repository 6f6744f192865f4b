"""Commands of ascl-rules for rule authors: init, lint, diff, stats, owners and rollback."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    ProgressEncoder,
    Rules,
    load_cli_settings,
    notify,
    print_json,
    print_table,
    progress,
)
from rule_server.errors import RulebookError

if TYPE_CHECKING:
    from rule_server.authoring import ChangedAnswer, Question
    from rule_server.authoring.lint import Search
    from rule_server.retrieval.versions import StoredRulebook
    from rule_server.rulebook import LintProblem, Rulebook
    from rule_server.schemas import ConsultResponse
    from rule_server.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    for command in (init, lint, diff, stats, owners, rollback):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Do not extend the packaged rules.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the rulebook (default: the folder name).")] = None,
) -> None:
    """Create your own rulebook, as a layer over the packaged rules or standalone.

    A layer can add rules, and replace or retire packaged rules by ID.

    Example: ascl-rules init my-rules
    """
    from rule_server.authoring import write_starter

    for file in write_starter(folder, standalone=standalone, name=name):
        typer.echo(str(file))
    notify(
        f"edit these, then `ascl-rules lint --rules {folder}` and `ascl-rules serve --rules {folder}`"
        + ("" if standalone else "; the example rule is a draft: try it with `ascl-rules query --draft`")
    )


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
    before = _open_rulebook(against, settings) if against is not None else None
    report = lint_rules(folders, settings.variables, search=_search_check(settings), before=before)
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


def diff(
    before: Annotated[str, typer.Argument(help="Folder, digest or git revision.", metavar="A")],
    after: Annotated[str, typer.Argument(help="Folder, digest or git revision.", metavar="B")],
    questions: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON Lines with `situation` or `prompt`; lists the questions that would match different "
            "rules. Repeatable.",
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

    Example: ascl-rules diff HEAD~1 rules --questions consultations.jsonl
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring import changed_answers, diff_rulebooks, read_questions

    rows, bad = read_questions(questions or [])
    folders = [Path(spec) for spec in (before, after) if spec and Path(spec).is_dir()]
    default_folder = folders[0] if len(folders) == 1 and not rules else None
    old = _open_rulebook(before, settings, default_folder)
    new = _open_rulebook(after, settings, default_folder)
    difference = diff_rulebooks(old, new)
    changed: list[ChangedAnswer] = []
    if rows:
        changed = changed_answers(rows, *_answer([old, new], rows, settings))
    if as_json:
        value = {
            "a": _rulebook_dict(old, before),
            "b": _rulebook_dict(new, after),
            "same": old.digest == new.digest,
        }
        value |= difference.as_dict()
        if questions:
            value["questions"] = {
                "asked": len(rows),
                "changed": [change.as_dict() for change in changed],
                "bad_lines": [line.as_dict() for line in bad],
            }
        print_json(value)
        return
    from rule_server.cli.tables import print_changed_answers, print_diff

    print_diff(difference, (before, old), (after, new))
    if questions:
        print_changed_answers(rows, changed, bad)


def stats(
    files: Annotated[list[Path], typer.Argument(help="JSON Lines of consultations.", metavar="FILE...")],
    rules: Rules = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """Count how often rules and categories are returned, and list unused rules and unanswered questions.

    A row has `situation` or `prompt`, and optionally `kind`, `rules`, `verdict` and `digest`. Rows without
    `rules` are queried again with the current rulebook. The audit log of `serve` has this format, with or
    without question texts.

    Example: ascl-rules stats consultations.jsonl --json
    """
    settings = load_cli_settings(dir=rules, artefact=artefact, watch=False)
    from rule_server.authoring import read_questions, summarize_usage

    rows, bad = read_questions(files, answers_suffice=True)
    unanswered = [row for row in rows if row.rules is None]
    book, replayed = _answer_with_served_rules(settings, unanswered)
    answers = iter(replayed)
    returned = [list(row.rules) if row.rules is not None else next(answers) for row in rows]
    usage = summarize_usage(book, rows, returned)
    if as_json:
        rest = {"replayed": len(unanswered), "bad_lines": [line.as_dict() for line in bad]}
        print_json({"rulebook": _rulebook_dict(book)} | usage.as_dict() | rest)
    else:
        from rule_server.cli.tables import print_usage

        print_usage(usage, book, len(unanswered), bad)


def owners(
    rules: Rules = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="List the rules with overdue reviews instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the owners with their number of rules, number of overdue reviews and next review date.

    Example: ascl-rules owners --overdue
    """
    import datetime

    settings = load_cli_settings(dir=rules)
    from rule_server.authoring.lint import overdue as overdue_rules

    book = _served_rulebook(settings)
    late = overdue_rules(book, datetime.datetime.now(datetime.UTC).date())
    rows: list[dict[str, str | int]]
    if overdue:
        rows = [
            {"id": rule.id, "lang": rule.lang, "owner": rule.owner, "review_by": str(rule.review_by)}
            for rule in sorted(late, key=lambda rule: (rule.review_by, rule.id))
        ]
    else:
        active = [rule for rule in book.rules if rule.status == "active"]
        rows = [
            {
                "owner": owner,
                "rules": sum(rule.owner == owner for rule in active),
                "overdue": sum(rule.owner == owner for rule in late),
                "next_review": str(min(rule.review_by for rule in active if rule.owner == owner)),
            }
            for owner in sorted({rule.owner for rule in active})
        ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)])
    else:
        typer.echo("no review is overdue" if overdue else "no rule is active")


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
            print_table([header, *map(_version_row, versions)])
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


def _open_rulebook(spec: str, settings: Settings, folder: Path | None = None) -> Rulebook:
    """Opens a rulebook by its folder, its digest or a git revision of `folder`."""
    from rule_server.authoring.sources import open_source
    from rule_server.retrieval.artefact import Artefact
    from rule_server.settings import packaged_rules

    local = Path("rules")
    default = local if (local / "rulebook.yaml").is_file() else packaged_rules()
    several = folder is None and settings.dir is not None and len(settings.dir) > 1
    if several and not Path(spec).is_dir() and not re.fullmatch("[0-9a-fA-F]{6,64}", spec):
        raise RulebookError(
            f"{spec}: a git revision can be looked up in one rules folder only, and several are set: "
            "specify one with --rules, or compare with a digest that `ascl-rules rollback` lists"
        )
    rules = folder or (settings.dir[-1] if settings.dir else default)
    return open_source(spec, Artefact(settings.artefact), rules, settings.variables).rulebook


def _served_rulebook(settings: Settings) -> Rulebook:
    """Returns the rulebook that `serve` would serve: from the rules folders, else from the artefact."""
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import rules_folders
    from rule_server.retrieval.versions import load_version
    from rule_server.rulebook import load_rulebook

    artefact = Artefact(settings.artefact)
    current = artefact.current()
    folders = rules_folders(settings, current)
    if folders:
        return load_rulebook(folders, settings.variables)
    if current is None:
        raise RulebookError(
            "there are no rules: specify a rules folder with --rules, or a built artefact with --artefact"
        )
    return load_version(artefact, current.rulebook)


def _answer_with_served_rules(
    settings: Settings, questions: Sequence[Question]
) -> tuple[Rulebook, list[list[str]]]:
    """Returns the served rulebook, and the IDs of the rules that it returns for each question."""
    book = _served_rulebook(settings)
    if not questions:
        return book, []
    from rule_server.authoring import rule_ids

    [answers] = _answer([book], questions, settings)
    return book, [rule_ids(answer) for answer in answers]


def _answer(
    books: Sequence[Rulebook], questions: Sequence[Question], settings: Settings
) -> list[list[ConsultResponse]]:
    """Returns each rulebook's responses to each question. The artefact's current rulebook does not change."""
    from rule_server.authoring.replay import replay
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import open_encoder
    from rule_server.retrieval.versions import index_for

    encoder = open_encoder(settings, notify)
    store = Artefact(settings.artefact)
    with_progress = ProgressEncoder(encoder.fingerprint, lambda: encoder)
    indexes = [index_for(book, store, with_progress) for book in books]
    with progress("querying", len(questions)) as advance:
        return replay(indexes, encoder, settings, [question.text for question in questions], advance)


def _search_check(settings: Settings) -> Search | None:
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


def _rulebook_dict(book: Rulebook, spec: str | None = None) -> dict[str, str]:
    source = {} if spec is None else {"spec": spec}
    return source | {"name": book.name, "version": book.version, "digest": book.digest}
