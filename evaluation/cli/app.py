"""Score logged episodes and report how a model uses the rules."""

from __future__ import annotations

import typer

from evaluation.cli import judge
from evaluation.cli.common import Version, shorten_types_in_help
from evaluation.cli.label import label
from evaluation.cli.report import compare, report
from evaluation.cli.rule_edit import edit_rule
from evaluation.cli.run import run
from evaluation.cli.score import score

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def root(version: Version = False) -> None:
    """Reads the options that precede a command."""


app.add_typer(judge.app, name="judge")
app.command(
    "edit-rule",
    epilog="Example: ascl-eval edit-rule --rule cyber.administration --base-url http://127.0.0.1:8810/v1 "
    "--model NAME --out runs/edit",
)(edit_rule)
app.command(
    epilog="Example: ascl-eval run --log runs/base.jsonl --base-url http://127.0.0.1:8810/v1 --model NAME"
)(run)
app.command(epilog="Example: ascl-eval label runs/base.jsonl --out runs/labels.jsonl --by ada")(label)
app.command(epilog="Example: ascl-eval score runs/train.jsonl --out runs/train-rewards.jsonl")(score)
app.command(
    epilog="Example: ascl-eval report --arm before=runs/a.jsonl --arm after=runs/b.jsonl --out runs/report"
)(report)
app.command(epilog="Example: ascl-eval compare runs/monday runs/tuesday")(compare)
shorten_types_in_help(app)


def main() -> None:
    """Entry point of `ascl-eval`."""
    app()
