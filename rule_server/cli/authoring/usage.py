"""Counts the use of rules and lists their owners: the commands stats and owners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rule_server.cli.authoring.rulebooks import answer_with_served_rules, rulebook_dict, served_rulebook
from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    Rules,
    load_cli_settings,
    print_json,
)
from rule_server.cli.terminal import print_table


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
    book, replayed = answer_with_served_rules(settings, unanswered)
    answers = iter(replayed)
    returned = [list(row.rules) if row.rules is not None else next(answers) for row in rows]
    usage = summarize_usage(book, rows, returned)
    if as_json:
        rest = {"replayed": len(unanswered), "bad_lines": [line.as_dict() for line in bad]}
        print_json({"rulebook": rulebook_dict(book)} | usage.as_dict() | rest)
    else:
        from rule_server.cli.authoring.tables import print_usage

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

    book = served_rulebook(settings)
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
        print_table(
            [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)],
            cut=(0, 2) if overdue else (0,),
        )
    else:
        typer.echo("no review is overdue" if overdue else "no rule is active")
