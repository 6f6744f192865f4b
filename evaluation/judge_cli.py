"""Judges of answers: how far they agree with people, and what they say of logged episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.terminal import AsJson, clear_errors

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command(epilog="Example: ascl-eval judge agree --data labelled.jsonl --json")
def agree(
    data: Annotated[
        Path,
        typer.Option(
            help="JSON Lines of prompt, response, label (compliance, refusal or partial), and maybe model."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Measure the offline refusal detector against people's labels; refusal and partial are positive."""
    from evaluation.agreement import Label, agreement, read_answers
    from evaluation.refusal import detect_refusal

    with clear_errors():
        answers = read_answers(data)
    said: list[Label | None] = []
    with typer.progressbar(answers, label="judging", file=_stderr()) as rows:
        said = [detect_refusal(row.response).label for row in rows]
    found = agreement(answers, said)
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else _table(found))


def _stderr() -> Any:
    import sys

    return sys.stderr


def _table(found: dict[str, Any]) -> str:
    lines = [f"{'model':20} {'n':>6} {'precision':>10} {'recall':>8} {'F1':>7} {'95 %':>16} {'kappa':>7}"]
    for name, figures in [("all", found), *found["by_model"].items()]:
        interval = figures["intervals"]["f1"]
        lines.append(
            f"{name[:20]:20} {figures['n']:6} {_cell(figures['precision']):>10} {_cell(figures['recall']):>8}"
            f" {_cell(figures['f1']):>7} {'–' if interval is None else '{:.3f}–{:.3f}'.format(*interval):>16}"
            f" {_cell(figures['kappa']):>7}"
        )
    lines.append("\npeople's label, then the judge's:")
    for people, row in found["confusion"].items():
        lines.append(f"{people:12}" + "  ".join(f"{judge} {count}" for judge, count in row.items()))
    if found["unjudged"]:
        lines.append(f"without an answer to judge: {found['unjudged']}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
