"""`ascl-train loop`: rounds of sampling and training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.terminal import AsJson, clear_errors, idle_threads_sleep


def register(app: typer.Typer) -> None:
    """Add the commands to `ascl-train`."""
    app.command(epilog="Example: ascl-train loop --config trainer/recipes/loop.yaml --out runs/loop")(loop)


def loop(
    config: Annotated[Path, typer.Option(help="YAML of settings; see trainer/recipes/loop.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for rounds/ and loop.json; the same command goes on.")],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many rounds in all; over the YAML's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to start from; over the YAML's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve, sample, reward, train, and again with what came of it; killed, the same command goes on."""
    with clear_errors():
        from trainer.loop import run_loop
        from trainer.loop_settings import read_loop_settings

        settings = read_loop_settings(config, rounds=rounds, model=model)
        idle_threads_sleep()
        record = run_loop(settings, out, lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(record))
        return
    for told in record["rounds"]:
        rates = ", ".join(
            f"{kind} {figures['consult_rate']:.0%}"
            for kind, figures in told.get("measured", {}).items()
            if figures["consult_rate"] is not None
        )
        typer.echo(f"round {told['round']}: consult rate {rates or 'not measured'}")
        if told["below_floor"]:
            typer.echo(f"stopped: {told['below_floor']}")
    typer.echo(f"model: {record['model']}")
