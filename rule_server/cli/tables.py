"""Diffs and counts as tables for a person at the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from rule_server.authoring import ids
from rule_server.cli.options import notify, print_table

if TYPE_CHECKING:
    from rule_server.authoring import BadLine, ChangedAnswer, Question, RulebookDiff, Usage
    from rule_server.rulebook import Rulebook

SHOWN = 20
"""Rows of a list that goes on; `--json` has them all."""


def print_diff(difference: RulebookDiff, before: tuple[str, Rulebook], after: tuple[str, Rulebook]) -> None:
    """Both rulebooks, then a line for each difference."""
    for letter, (spec, book) in zip("AB", (before, after), strict=True):
        typer.echo(f"{letter}  {book.name} {book.version} {book.digest[:12]}  {spec}")
    lines = difference.lines()
    print_table(lines)
    if not lines:
        same = before[1].digest == after[1].digest
        typer.echo("the same" if same else "the same rules under another name or version")
    else:
        typer.echo(
            f"{len(difference.added)} rules added, {len(difference.removed)} removed, "
            f"{len(difference.changed)} changed"
        )


def print_answers(
    asked: Sequence[Question], changed: Sequence[ChangedAnswer], bad: Sequence[BadLine]
) -> None:
    """The questions whose rules differ, before and after."""
    typer.echo(f"{len(changed)} of {len(asked)} questions would get other rules")
    rows = [("line", "A", "B", "question")]
    for change in changed[:SHOWN]:
        a, b = (", ".join(ids(answer)) or answer.verdict for answer in (change.before, change.after))
        rows.append((str(change.question.line), a, b, change.question.text[:80]))
    if changed:
        print_table(rows)
    _print_rest(len(changed))
    _print_bad(bad)


def print_usage(counted: Usage, book: Rulebook, replayed: int, bad: Sequence[BadLine]) -> None:
    """Categories, rules and kinds with their counts; then what is never used and what finds nothing."""
    typer.echo(
        f"{counted.consultations} consultations ({replayed} asked again), {counted.nothing} found no rule; "
        f"{book.name} {book.version} {book.digest[:12]}"
    )
    foreign = sum(times for digest, times in counted.digests.items() if not book.digest.startswith(digest))
    if foreign:
        typer.echo(f"{foreign} of them were answered by another rulebook")
    for table in (counted.category_table(), counted.rule_table(), counted.kind_table()):
        typer.echo()
        print_table(table)
    typer.echo(f"\nnever consulted: {len(counted.never)} of {len(counted.rules)} rules")
    for id in counted.never:
        typer.echo(f"  {id}")
    if counted.unknown:
        gone = ", ".join(f"{id[:129]} {times}" for id, times in list(counted.unknown.items())[:SHOWN])
        typer.echo(f"consulted, but not in this rulebook: {gone}")
    if counted.unanswered:
        typer.echo("\nfound nothing:")
        print_table([(f"{times} x", text[:100]) for text, times in counted.unanswered[:SHOWN]])
        _print_rest(len(counted.unanswered))
    _print_bad(bad)


def _print_rest(count: int) -> None:
    if count > SHOWN:
        typer.echo(f"... and {count - SHOWN} more: --json has them all")


def _print_bad(bad: Sequence[BadLine]) -> None:
    if bad:
        shown = "; ".join(str(line) for line in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        notify(f"{len(bad)} lines hold no question and were left out: {shown}{more}")
