"""`ascl-train loop`, `online` and `launch`: training that samples episodes, in one or many processes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer.cli.common import (
    AsJson,
    Overwrite,
    exit_on_error,
    fail,
    is_rank_zero,
    let_idle_threads_sleep,
    refuse_existing,
    resolve_recipe,
)
from trainer.orchestration import exit_with_launcher

if TYPE_CHECKING:
    from trainer.orchestration import Machines
    from trainer.orchestration.gpu_memory import MemoryEstimate
    from trainer.orchestration.launch import Command

MACHINES = "Machines"


def register(app: typer.Typer) -> None:
    """Adds the commands to `ascl-train`."""
    # Before the libraries load, so that a launcher killed in the meantime leaves no process behind.
    exit_with_launcher()
    app.command(epilog="Example: ascl-train loop --config builtin:loop --out runs/loop")(loop)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Example: ascl-train online --config builtin:online-1gpu --out runs/online",
    )(online)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Example: ascl-train launch online --config builtin:online-8gpu --gpus 8 "
        "--vllm-gpus 2 --out runs/online --dry-run",
    )(launch)


def loop(
    config: Annotated[
        Path, typer.Option(help="YAML settings file, or builtin:loop.", callback=resolve_recipe)
    ],
    out: Annotated[Path, typer.Option(help="Folder for rounds/ and loop.json.")],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Total number of rounds; overrides the settings file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to start from; overrides the settings file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run rounds of serving, sampling, scoring and training. To resume, rerun the same command."""
    with exit_on_error():
        from trainer.orchestration import read_loop_settings, run_loop

        settings = read_loop_settings(config, rounds=rounds, model=model)
        let_idle_threads_sleep()
        record = run_loop(settings, out, _notify)
    if as_json:
        typer.echo(json.dumps(record))
        return
    for entry in record["rounds"]:
        rates = ", ".join(
            f"{kind} {metrics['consult_rate']:.0%}"
            for kind, metrics in entry.get("measured", {}).items()
            if metrics["consult_rate"] is not None
        )
        typer.echo(f"round {entry['round']}: consult rate {rates or 'not measured'}")
        if reason := entry["below_floor"] or entry.get("no_signal"):
            typer.echo(f"stopped: {reason}")
    typer.echo(f"model: {record['model']}")


def online(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML settings file, or a recipe such as builtin:online-1gpu (default: only the options). "
            "`ascl-train settings online` lists the settings.",
            callback=resolve_recipe,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to train; overrides the settings file.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train on fresh episodes with a running rule service. Override any setting with `--setting value`."""
    with exit_on_error():
        if config is not None and not config.is_file():
            fail(f"the file '{config}' does not exist", 1)
        let_idle_threads_sleep()
        from trainer.stages.online.config import parse_online

        named = {"model": model, "output_dir": str(out)}
        options = [word for name, value in named.items() if value for word in (f"--{name}", value)]
        arguments, settings = parse_online(config, [*options, *context.args])
        if not arguments.resume:
            refuse_existing(out / "run.json", overwrite)
        from trainer.stages.online.stage import run_online

        run = run_online(arguments, settings)
    if not is_rank_zero():
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
    stage: Annotated[Literal["online", "logged"], typer.Argument(help="Stage to run.")],
    config: Annotated[
        Path, typer.Option(help="YAML settings file of the stage, or a recipe.", callback=resolve_recipe)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    model: Annotated[str | None, typer.Option(help="Model to train; overrides the settings file.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per node; 0 for CPU.", rich_help_panel=MACHINES)] = 1,
    vllm_gpus: Annotated[
        int, typer.Option(min=0, help="GPUs per node that serve vLLM.", rich_help_panel=MACHINES)
    ] = 0,
    judge_gpus: Annotated[
        int,
        typer.Option(
            min=0,
            help="GPUs that serve the settings' judge_model with vLLM (0: the judge runs at judge_url).",
            rich_help_panel=MACHINES,
        ),
    ] = 0,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.", rich_help_panel=MACHINES)] = 1,
    node: Annotated[
        int, typer.Option(min=0, help="Index of this node, from 0.", rich_help_panel=MACHINES)
    ] = 0,
    main: Annotated[
        str, typer.Option(help="Address of the first node.", rich_help_panel=MACHINES)
    ] = "127.0.0.1",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainer processes per node (default: one per free GPU).", rich_help_panel=MACHINES
        ),
    ] = None,
    gpu_gib: Annotated[
        float, typer.Option(min=1, help="Memory per GPU, in GiB.", rich_help_panel=MACHINES)
    ] = 80,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands without running them.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Run two steps with tiny lengths, but all processes and services, in OUT/smoke."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run a stage in several processes or on several nodes, together with the services it needs.

    Unknown options are passed to the stage.

    \f
    Long because it declares one parameter per flag.
    """
    with exit_on_error():
        from trainer.errors import ConfigError
        from trainer.orchestration import (
            Machines,
            describe_smoke,
            estimate_memory,
            plan,
            read_yaml,
            run_plan,
            settings_of_options,
            write_smoke_config,
        )

        given = read_yaml(config)
        settings = given | settings_of_options(context.args)
        model = model or given.get("model")
        if not model:
            raise ConfigError(f"{config} names no model: pass --model, or add `model: NAME` to the file")
        machines = Machines(gpus, vllm_gpus, judge_gpus, nodes, node, main, processes, gpu_gib)
        options = context.args
        if smoke:
            # The settings of a file, because no option can unset one; the stage replaces an earlier attempt.
            config, out, options = write_smoke_config(stage, settings, out), out / "smoke", ["--overwrite"]
        elif not (dry_run or settings.get("resume")):
            refuse_existing(out / "run.json", overwrite)
            options = [*options, *(["--overwrite"] if overwrite else [])]
        in_file = settings if smoke else given
        rules_served = (in_file.get("rules_url") or in_file.get("rules")) is not None
        commands = plan(
            stage, config, str(model), out, machines, options, rules_served, _judge_model(settings, machines)
        )
        memory = estimate_memory(stage, settings, str(model), machines)
        if as_json:
            typer.echo(json.dumps(_plan_as_json(commands, memory, dry_run)))
        elif dry_run:
            _print_plan(commands, memory, machines)
        if not dry_run:
            output = sys.stderr if as_json else None
            run_plan(commands, out / "logs", _notify, output)
            if smoke and node == 0:
                sampler_log = out / "logs" / "vllm.log" if machines.vllm_gpus else None
                _notify(describe_smoke(out, machines.trainers, sampler_log))


def _judge_model(settings: dict[str, Any], machines: Machines) -> str | None:
    """Returns the judge that the GPUs of --judge-gpus serve; None without such GPUs."""
    from evaluation.scorers.judges.registry import make_judge
    from trainer.errors import ConfigError

    if not machines.judge_gpus:
        return None
    missing = [name for name in ("judge", "judge_model") if not settings.get(name)]
    if missing or settings.get("judge_url"):
        raise ConfigError(
            f"--judge-gpus serves the judge: set {missing[0]}, such as judge: wildguard and judge_model: NAME"
            if missing
            else "--judge-gpus serves the judge, but judge_url names one that runs already: leave out either"
        )
    try:
        make_judge(str(settings["judge"]))
    except ValueError as error:
        raise ConfigError(f"judge: {error}") from None
    return str(settings["judge_model"])


def _plan_as_json(commands: list[Command], memory: MemoryEstimate | None, dry_run: bool) -> dict[str, Any]:
    """Returns the plan for JSON output. Masks secrets, except in a dry run: pasted commands must work."""
    from trainer.stages import mask_secrets_in_text

    entries = [
        {
            "title": command.title,
            "command": command.line() if dry_run else mask_secrets_in_text(command.line()),
            "answers_at": command.answers_at,
        }
        for command in commands
    ]
    return {"commands": entries, "memory": asdict(memory) if memory else None}


def _print_plan(commands: list[Command], memory: MemoryEstimate | None, machines: Machines) -> None:
    from trainer.orchestration import format_estimate

    for command in commands:
        typer.echo(f"# {command.title}" + ("" if command.answers_at is None else ", runs in the background"))
        typer.echo(command.line())
    if memory:
        typer.echo(f"# {format_estimate(memory, machines)}")


def _notify(line: str) -> None:
    typer.echo(line, err=True)
