"""`ascl-train online`, `loop` and `launch`: training with sampling in it, and on many processes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.common import AsJson, clear_errors, fail, idle_threads_sleep, is_first_process
from trainer.orchestration import exit_with_launcher


def register(app: typer.Typer) -> None:
    """Add the commands to `ascl-train`."""
    exit_with_launcher()  # at once: a launcher that is killed while the libraries load leaves none behind
    app.command(epilog="Example: ascl-train loop --config trainer/recipes/loop.yaml --out runs/loop")(loop)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Example: ascl-train online --config trainer/recipes/online-1gpu.yaml --out runs/online",
    )(online)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Example: ascl-train launch online --config trainer/recipes/online-8gpu.yaml --gpus 8 "
        "--vllm-gpus 2 --out runs/online --dry-run",
    )(launch)


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
        from trainer.orchestration import read_loop_settings, run_loop

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


def online(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML of settings: ours and all of trl.GRPOConfig's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to train; over the YAML's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train on fresh episodes through a running rule service. Any setting can be overridden."""
    with clear_errors():
        if config is not None and not config.is_file():
            fail(f"there is no file at '{config}'", 1)
        idle_threads_sleep()
        from trainer.stages.online.config import parse_online

        named = {"model": model, "output_dir": str(out)}
        options = [part for name, value in named.items() if value for part in (f"--{name}", value)]
        arguments, settings = parse_online(config, [*options, *context.args])
        from trainer.stages.online.stage import run_online

        run = run_online(arguments, settings)
    if not is_first_process():
        return
    if as_json:
        typer.echo(json.dumps(run))
        return
    typer.echo(
        f"{run['method']} online in {run['seconds']:.0f} s, {len(run['steps'])} steps -> {out / 'merged'}"
    )
    if run["stopped"]:
        typer.echo(run["stopped"])


def launch(
    context: typer.Context,
    stage: Annotated[Literal["online", "logged"], typer.Argument(help="What to run.")],
    config: Annotated[Path, typer.Option(help="YAML of the stage's settings.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    model: Annotated[str | None, typer.Option(help="The model to train; over the YAML's.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each node; 0 for a CPU.")] = 1,
    vllm_gpus: Annotated[int, typer.Option(min=0, help="How many of them serve vLLM.")] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
    node: Annotated[int, typer.Option(min=0, help="Which of them this is, from 0.")] = 0,
    main: Annotated[str, typer.Option(help="Address of the first machine.")] = "127.0.0.1",
    processes: Annotated[
        int | None, typer.Option(min=1, help="Trainer processes a machine; left out: one a free GPU.")
    ] = None,
    gpu_gib: Annotated[float, typer.Option(min=1, help="Memory of a GPU, GiB.")] = 80,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and run none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a stage on several processes or machines, and what it needs beside it; the rest passes on."""
    with clear_errors():
        from trainer.errors import ConfigError
        from trainer.orchestration import (
            Machines,
            estimate_memory,
            format_estimate,
            plan,
            read_yaml,
            run_plan,
        )
        from trainer.stages import mask_secrets_in_text

        known = read_yaml(config)
        named = model or known.get("model")
        if not named:
            raise ConfigError(f"{config} names no model: pass --model, or write `model: NAME` there")
        machines = Machines(gpus, vllm_gpus, nodes, node, main, processes, gpu_gib)
        commands = plan(
            stage, config, str(named), out, machines, context.args, known.get("rules") is not None
        )
        memory = estimate_memory(stage, known, str(named), machines)
        if as_json:
            # What is to be pasted stands as it was given; what is run may end in a log.
            lines = [c.line() if dry_run else mask_secrets_in_text(c.line()) for c in commands]
            shown = [
                {"title": c.title, "command": line, "answers_at": c.answers_at}
                for c, line in zip(commands, lines, strict=True)
            ]
            typer.echo(json.dumps({"commands": shown, "memory": asdict(memory) if memory else None}))
        elif dry_run:
            for command in commands:
                typer.echo(f"# {command.title}" + ("" if command.answers_at is None else ", beside the rest"))
                typer.echo(command.line())
            if memory:
                typer.echo(f"# {format_estimate(memory, machines)}")
        if not dry_run:
            output = sys.stderr if as_json else None
            run_plan(commands, out / "logs", lambda line: typer.echo(line, err=True), output)
