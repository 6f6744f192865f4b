"""Prepare a model, teach it to consult the rules, and train it on its own episodes."""

from __future__ import annotations

import typer

from trainer.cli import orchestration, reports
from trainer.cli.common import Version, shorten_types_in_help
from trainer.cli.decision import decision
from trainer.cli.groups import prepare, stats
from trainer.cli.settings import settings
from trainer.cli.train import local_model, logged, sft

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def root(version: Version = False) -> None:
    """Reads the options that precede a command."""


app.command("local-model", epilog="Example: ascl-train local-model --dir models/smollm2")(local_model)
app.command(epilog="Example: ascl-train sft --model models/smollm2 --out runs/cold-start")(sft)
app.command(
    epilog="Example: ascl-train prepare runs/train.jsonl runs/train-rewards.jsonl --out runs/groups.parquet"
)(prepare)
app.command(epilog="Example: ascl-train stats runs/groups.parquet")(stats)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: ascl-train logged --config builtin:demo --model runs/cold-start/merged "
    "--groups runs/groups.parquet --out runs/ifpo --learning_rate 1e-4",
)(logged)
app.command(epilog="Example: ascl-train settings online --json")(settings)
reports.register(app)
app.command(
    epilog="Example: ascl-train decision runs/calibration.jsonl --model runs/ifpo/merged --at harmful=0.95"
)(decision)
orchestration.register(app)
shorten_types_in_help(app)


def main() -> None:
    """Runs `ascl-train`."""
    app()
