"""`ascl-train check` and `plot`: inspect an episode, and compare runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.common import AsJson, exit_on_error, fail


def register(app: typer.Typer) -> None:
    """Adds the commands to `ascl-train`."""
    app.command(
        epilog="Example: ascl-train check runs/groups.parquet --model runs/cold-start/merged --episode ID"
    )(check)
    app.command(epilog="Example: ascl-train plot runs/ifpo runs/grpo --out runs/compared")(plot)


def check(
    groups: Annotated[
        Path, typer.Argument(help="Groups file from `ascl-train prepare`.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Folder or Hugging Face model ID of the model to train.")],
    episode: Annotated[
        str | None, typer.Option(help="Episode ID (default: the first with a nonzero advantage).")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Print long prompts in full.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show an episode as the trainer sees it: tokens that contribute to the loss, log-probs, advantage."""
    from trainer.tokens import TokenError

    with exit_on_error():
        try:
            from trainer.reports.episode_check import check_episode
            from trainer.reports.episode_view import print_episode

            checked = check_episode(groups, model, episode)
        except TokenError as cause:
            detail = f": {cause.detail}" if cause.detail else ""
            fail(f"training would exclude this episode: {cause}{detail}", 1)
    if as_json:
        typer.echo(json.dumps(checked.as_json(), ensure_ascii=False))
    else:
        print_episode(checked, whole)


def plot(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, from a stage or a loop.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs.png, runs.html and runs.json.")],
    as_json: AsJson = False,
) -> None:
    """Plot runs side by side: consult rate by kind, reward by mode, weights, drift. Writes PNG and HTML."""
    with exit_on_error():
        from trainer.reports import plot_runs

        comparison = plot_runs(runs, out)
    if as_json:
        typer.echo(json.dumps(comparison.as_json()))
        return
    for note in comparison.notes:
        typer.echo(note)
    typer.echo("wrote " + ", ".join(str(path) for path in comparison.written))
