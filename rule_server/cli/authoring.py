"""The commands of ascl-rules with which a policy team starts, checks, compares and goes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    Rules,
    WithProgress,
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
    """Add the commands to the app."""
    for command in (init, lint, diff, stats, owners, rollback):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    standalone: Annotated[bool, typer.Option("--standalone", help="Without our rules beneath it.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the rulebook. Default: the folder's.")] = None,
) -> None:
    """Start a rulebook of your own: it lies over ours (adds, replaces, retires by id), or stands alone.

    Example: ascl-rules init my-rules
    """
    from rule_server.authoring import write_starter

    for file in write_starter(folder, standalone=standalone, name=name):
        typer.echo(str(file))
    notify(
        f"edit these, then `ascl-rules lint --rules {folder}` and `ascl-rules serve --rules {folder}`"
        + ("" if standalone else "; its one rule is a draft: see it by `ascl-rules query --draft`")
    )


def lint(
    rules: Rules = None,
    artefact: ArtefactDir = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="An earlier rulebook, whose ids must still mean the same: a folder, digest or git revision.",
            metavar="RULEBOOK",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a rules folder: every problem with its file and its fix; exit code 1 when there is one.

    Example: ascl-rules lint --rules my-rules --against HEAD --json
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring.lint import lint_rules
    from rule_server.retrieval.build import rules_folders

    folders = rules_folders(settings)
    if not folders:
        raise RulebookError("there are no rules to check: name a rules folder by --rules")
    before = _open(against, settings) if against is not None else None
    report = lint_rules(folders, settings.variables, search=_search_check(settings), before=before)
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
            help="JSON Lines with `situation` or `prompt`: which would get other rules? Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    rules: Rules = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """What changed from rulebook A to rulebook B, and which questions would now get other rules.

    Each is a folder, the digest (or its beginning) of a rulebook that was built, or a git revision: `HEAD~1`
    of the folder on the other side (else of --rules, else of `rules`), `HEAD~1:path` of another.

    Example: ascl-rules diff HEAD~1 rules --questions consultations.jsonl
    """
    settings = load_cli_settings(dir=rules, artefact=artefact)
    from rule_server.authoring import changed_answers, diff_rulebooks, read_questions

    asked, bad = read_questions(questions or [])
    folders = [Path(spec) for spec in (before, after) if spec and Path(spec).is_dir()]
    beside = folders[0] if len(folders) == 1 and not rules else None
    old, new = _open(before, settings, beside), _open(after, settings, beside)
    difference = diff_rulebooks(old, new)
    changed: list[ChangedAnswer] = []
    if asked:
        changed = changed_answers(asked, *_asked([old, new], asked, settings))
    if as_json:
        value = {"a": _head(before, old), "b": _head(after, new), "same": old.digest == new.digest}
        value |= difference.as_dict()
        if questions:
            value["questions"] = {
                "asked": len(asked),
                "changed": [change.as_dict() for change in changed],
                "bad_lines": [line.as_dict() for line in bad],
            }
        print_json(value)
        return
    from rule_server.cli.tables import print_answers, print_diff

    print_diff(difference, (before, old), (after, new))
    if questions:
        print_answers(asked, changed, bad)


def stats(
    files: Annotated[list[Path], typer.Argument(help="JSON Lines of consultations.", metavar="FILE...")],
    rules: Rules = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """Which rules and categories are consulted how often, which never, and which questions find nothing.

    A row holds `situation` or `prompt`, and may hold `kind`, `rules`, `verdict` and `digest`. Rows without
    `rules` are asked again, of the present rulebook. The audit log of `serve` is such a file, with or without
    its questions.

    Example: ascl-rules stats consultations.jsonl --json
    """
    settings = load_cli_settings(dir=rules, artefact=artefact, watch=False)
    from rule_server.authoring import read_questions, summarize_usage

    asked, bad = read_questions(files, answers_suffice=True)
    again = [question for question in asked if question.rules is None]
    book, replayed = _current(settings, again)
    answers = iter(replayed)
    found = [list(question.rules) if question.rules is not None else next(answers) for question in asked]
    counted = summarize_usage(book, asked, found)
    if as_json:
        rest = {"replayed": len(again), "bad_lines": [line.as_dict() for line in bad]}
        print_json({"rulebook": _head(None, book)} | counted.as_dict() | rest)
    else:
        from rule_server.cli.tables import print_usage

        print_usage(counted, book, len(again), bad)


def owners(
    rules: Rules = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="List the rules whose review is due, instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Who answers for how many rules, how many reviews are overdue, and when the next is due.

    Example: ascl-rules owners --overdue
    """
    import datetime

    settings = load_cli_settings(dir=rules)
    from rule_server.authoring.lint import overdue as overdue_rules

    book = _followed(settings)
    late = overdue_rules(book, datetime.datetime.now(datetime.UTC).date())
    listed: list[dict[str, str | int]]
    if overdue:
        listed = [
            {"id": rule.id, "lang": rule.lang, "owner": rule.owner, "review_by": str(rule.review_by)}
            for rule in sorted(late, key=lambda rule: (rule.review_by, rule.id))
        ]
    else:
        active = [rule for rule in book.rules if rule.status == "active"]
        listed = [
            {
                "owner": owner,
                "rules": sum(rule.owner == owner for rule in active),
                "overdue": sum(rule.owner == owner for rule in late),
                "next_review": str(min(rule.review_by for rule in active if rule.owner == owner)),
            }
            for owner in sorted({rule.owner for rule in active})
        ]
    if as_json:
        print_json(listed)
    elif listed:
        print_table([list(listed[0]), *([str(cell) for cell in row.values()] for row in listed)])
    else:
        typer.echo("no review is overdue" if overdue else "no rule is active")


def rollback(
    digest: Annotated[
        str | None, typer.Argument(help="Digest, or its beginning. Left out: list those that are kept.")
    ] = None,
    artefact: ArtefactDir = None,
    as_json: AsJson = False,
) -> None:
    """Go back to a rulebook that was built earlier: `serve` without a rules folder then serves it.

    `ascl-rules build` goes forward again. The last 50 rulebooks that `build` made are kept, and 10 others.

    Example: ascl-rules rollback 3f9a2c41
    """
    settings = load_cli_settings(artefact=artefact)
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.versions import list_versions, roll_back

    store = Artefact(settings.artefact)
    if digest is None:
        kept = list_versions(store)
        if as_json:
            print_json([entry.as_dict() for entry in kept])
        elif kept:
            print_table([("", "digest", "name", "version", "rules", "built (UTC)", ""), *map(_row, kept)])
        else:
            typer.echo(f"{settings.artefact} keeps no rulebook: `ascl-rules build` makes one")
        return
    now = roll_back(store, digest)
    if as_json:
        print_json(now.as_dict() | {"current": True})
    else:
        typer.echo(f"{now.name} {now.version} {now.digest[:12]} is current again in {settings.artefact}")
    notify(
        "start the service again without --rules to serve it; one that follows a rules folder goes on "
        "serving that folder: restore the rules there from version control"
    )
    if settings.dir:
        notify("ASCL_RULES_DIR names a rules folder, which `serve` will follow instead: unset it")


def _row(kept: StoredRulebook) -> tuple[str, ...]:
    mark, published = "*" if kept.current else "", "published" if kept.published else ""
    return mark, kept.digest[:12], kept.name, kept.version, str(kept.rules), kept.built, published


def _open(spec: str, settings: Settings, beside: Path | None = None) -> Rulebook:
    """The rulebook that a folder, digest or revision (of the folder `beside`) names."""
    from rule_server.authoring.sources import open_source
    from rule_server.retrieval.artefact import Artefact
    from rule_server.settings import packaged_rules

    here = Path("rules")
    usual = here if (here / "rulebook.yaml").is_file() else packaged_rules()
    several = beside is None and settings.dir is not None and len(settings.dir) > 1
    if several and not Path(spec).is_dir() and not re.fullmatch("[0-9a-fA-F]{6,64}", spec):
        raise RulebookError(
            f"{spec}: a git revision can be looked up for one rules folder, not for several at once: "
            "name one by --rules, or compare with a digest that `ascl-rules rollback` lists"
        )
    rules = beside or (settings.dir[-1] if settings.dir else usual)
    return open_source(spec, Artefact(settings.artefact), rules, settings.variables).rulebook


def _followed(settings: Settings) -> Rulebook:
    """The rulebook that `serve` would serve: of the rules folders, or as the artefact holds it."""
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
            "there are no rules: name a rules folder by --rules, or a built artefact by --artefact"
        )
    return load_version(artefact, current.rulebook)


def _current(settings: Settings, questions: Sequence[Question]) -> tuple[Rulebook, list[list[str]]]:
    """The present rulebook, and the ids of the rules with which it answers each question."""
    book = _followed(settings)
    if not questions:
        return book, []
    from rule_server.authoring import ids

    [answers] = _asked([book], questions, settings)
    return book, [ids(answer) for answer in answers]


def _asked(
    books: Sequence[Rulebook], questions: Sequence[Question], settings: Settings
) -> list[list[ConsultResponse]]:
    """What each rulebook answers to each question; the artefact's current rulebook stays what it is."""
    from rule_server.authoring.replay import replay
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import open_encoder
    from rule_server.retrieval.versions import index_for

    encoder = open_encoder(settings, notify)
    store, shown = Artefact(settings.artefact), WithProgress(encoder.fingerprint, lambda: encoder)
    indexes = [index_for(book, store, shown) for book in books]
    with progress("asking", len(questions)) as advance:
        return replay(indexes, encoder, settings, [question.text for question in questions], advance)


def _search_check(settings: Settings) -> Search | None:
    """What looks for problems by vectors; None, with a word to the user, when there is no encoder."""
    from rule_server.errors import ArtefactError
    from rule_server.retrieval.artefact import Artefact

    store = Artefact(settings.artefact)
    skipped = "skipped: whether every rule is found by its own queries, and rules that are asked for alike"
    try:
        current = store.current()
    except ArtefactError as error:
        notify(f"{skipped} ({error})")
        return None
    if current is None or not store.has_encoder(current.encoder):
        notify(f"{skipped} ({settings.artefact} holds no encoder: run `ascl-rules build` once)")
        return None
    fingerprint = current.encoder
    encoder = WithProgress(fingerprint, lambda: store.encoder(fingerprint, settings.threads))

    def search(book: Rulebook, files: Mapping[tuple[str, str], str]) -> list[LintProblem]:
        from rule_server.authoring.lint.search import check_search
        from rule_server.retrieval.versions import index_for

        return check_search(index_for(book, store, encoder), encoder, files)

    return search


def _head(spec: str | None, book: Rulebook) -> dict[str, str]:
    named = {} if spec is None else {"spec": spec}
    return named | {"name": book.name, "version": book.version, "digest": book.digest}
