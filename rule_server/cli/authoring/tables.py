"""Prints diffs and usage counts as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from rule_server.authoring import rule_ids
from rule_server.cli.authoring.expectations import describe_outcomes
from rule_server.cli.options import notify
from rule_server.cli.terminal import print_table, print_text

if TYPE_CHECKING:
    from rule_server.authoring import BadLine, ChangedAnswer, Question, RulebookDiff, Usage
    from rule_server.authoring.expectations import Outcome
    from rule_server.rulebook import Rulebook

MAX_ROWS = 20
"""Maximum rows of a list. `--json` prints all."""


def print_diff(difference: RulebookDiff, before: tuple[str, Rulebook], after: tuple[str, Rulebook]) -> None:
    """Prints both rulebooks, then a line for each difference."""
    for letter, (spec, book) in zip("AB", (before, after), strict=True):
        print_text(f"{letter}  {book.name} {book.version} {book.digest[:12]}  {spec}")
    lines = difference.lines()
    print_table(lines, cut=(1, 2))
    if not lines:
        same = before[1].digest == after[1].digest
        print_text("identical" if same else "identical rules with a different name or version")
    else:
        print_text(
            f"{len(difference.added)} rules added, {len(difference.removed)} removed, "
            f"{len(difference.changed)} changed"
        )


def print_changed_answers(
    questions: Sequence[Question], changed: Sequence[ChangedAnswer], bad: Sequence[BadLine]
) -> None:
    """Prints the questions that match different rules, with the rules before and after."""
    print_text(f"{len(changed)} of {len(questions)} questions would match different rules")
    rows = [("line", "A", "B", "question")]
    for change in changed[:MAX_ROWS]:
        a, b = (", ".join(rule_ids(answer)) or answer.verdict for answer in (change.before, change.after))
        rows.append((str(change.question.line), a, b, change.question.text[:80]))
    if changed:
        print_table(rows, cut=(1, 2, 3))
    _print_rest(len(changed))
    _print_bad(bad)


def print_compared(before: Sequence[Outcome], after: Sequence[Outcome]) -> None:
    """Prints the cases that fail in B, or whose result differs, then the counts."""
    rows = [("A", "B", "case", "question", "expected", "found in B")]
    for old, new in zip(before, after, strict=True):
        if new.status == "failed" or old.status != new.status:
            case = new.expectation.case
            found = ", ".join(new.found) or new.reason or "nothing"
            question = " ".join(case.question.split())
            rows.append((old.status, new.status, new.expectation.place, question, str(case), found))
    if len(rows) > 1:
        print_table(rows, cut=(3, 4, 5))
    print_text(describe_outcomes(after))


def print_usage(usage: Usage, book: Rulebook, replayed: int, bad: Sequence[BadLine]) -> None:
    """Prints counts of categories, rules and kinds, then the unused rules and the unmatched questions."""
    print_text(
        f"{usage.consultations} consultations ({replayed} queried again), {usage.nothing} matched no rule; "
        f"{book.name} {book.version} {book.digest[:12]}"
    )
    if usage.unsupported_language:
        typer.echo(
            f"{usage.unsupported_language} of them are in a language in which rules cannot be searched"
        )
    foreign = sum(times for digest, times in usage.digests.items() if not book.digest.startswith(digest))
    if foreign:
        print_text(f"{foreign} of them were answered by a different rulebook")
    for table in (usage.category_table(), usage.rule_table(), usage.kind_table()):
        typer.echo()
        print_table(table, cut=(0,))
    print_text(f"\nnever returned: {len(usage.never)} of {len(usage.rules)} rules")
    for id in usage.never:
        print_text(f"  {id}")
    if usage.unknown:
        gone = ", ".join(f"{id[:129]} {times}" for id, times in list(usage.unknown.items())[:MAX_ROWS])
        print_text(f"returned, but not in this rulebook: {gone}")
    if usage.unanswered:
        print_text("\nmatched no rule:")
        print_table([(f"{times} x", text[:100]) for text, times in usage.unanswered[:MAX_ROWS]])
        _print_rest(len(usage.unanswered))
    _print_bad(bad)


def _print_rest(count: int) -> None:
    if count > MAX_ROWS:
        print_text(f"... and {count - MAX_ROWS} more: --json prints all")


def _print_bad(bad: Sequence[BadLine]) -> None:
    if bad:
        examples = "; ".join(str(line) for line in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        notify(f"skipped {len(bad)} lines that contain no question: {examples}{more}")
