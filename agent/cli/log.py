"""The commands of ascl-agent that read a log: list, show, check, export, redact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.cli.options import AsJson, LogArgument, fail, or_exit

if TYPE_CHECKING:
    from agent.export import Exported


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(epilog="Example: ascl-agent show runs/train.jsonl 3f2a")(show)
    app.command(epilog="Example: ascl-agent validate runs/train.jsonl --json")(validate)
    app.command(epilog="Example: ascl-agent export runs/train.jsonl --to trl --out train.parquet")(export)
    app.command(epilog="Example: ascl-agent redact runs/train.jsonl --out shareable.jsonl")(redact)


def show(
    log: LogArgument,
    episode: Annotated[
        str | None, typer.Argument(help="An episode's id or its beginning, or PROMPT_ID#SAMPLE.")
    ] = None,
    stable: Annotated[
        bool, typer.Option("--stable", help="Leave out id, address and times, so that two can be compared.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the episodes of a log, or show one of them in full."""
    from agent.cli.tables import print_episode, print_table, row, select
    from agent.episode import read_log

    reading = or_exit(lambda: read_log(log))
    if reading.skipped:
        first = reading.skipped[0]
        typer.echo(
            f"ascl-agent: {len(reading.skipped)} lines of {log} hold no episode (line {first.line}: "
            f"{first.reason})",
            err=True,
        )
    if episode is not None:
        chosen = or_exit(lambda: select(reading.episodes, episode, log))
        typer.echo(chosen.model_dump_json(indent=2)) if as_json else print_episode(chosen, stable=stable)
    elif as_json:
        typer.echo(json.dumps([row(each) for each in reading.episodes], ensure_ascii=False))
    else:
        print_table(reading.episodes)


def validate(log: LogArgument, as_json: AsJson = False) -> None:
    """Check that every line of a log is an episode and fits together; exit code 1 when something is wrong."""
    from agent.episode import validate_log

    episodes, problems = or_exit(lambda: validate_log(log))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "log": str(log),
                    "episodes": episodes,
                    "problems": [{"episode_id": p.episode_id, "what": p.what} for p in problems],
                },
                ensure_ascii=False,
            )
        )
    else:
        for problem in problems:
            typer.echo(f"{problem.episode_id or log}: {problem.what}")
        typer.echo(f"{episodes} episodes, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


def export(
    log: LogArgument,
    to: Annotated[
        Literal["trl", "inspect", "otel", "consultations"],
        typer.Option(
            help="`trl`: Parquet for SFTTrainer; `inspect`: a log for `inspect view`; `otel`: OTLP JSON "
            "spans; `consultations`: what `ascl-rules stats` reads."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    content: Annotated[bool, typer.Option("--content", help="Spans: include what was written.")] = False,
    rewards: Annotated[
        Path | None, typer.Option(help="Inspect: what `ascl-eval score` wrote of this log, as its scores.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a log in the form that another tool reads."""
    from agent.export import export_log

    if rewards is not None and to != "inspect":
        fail(f"--rewards stand in the log of Inspect only, not in --to {to}: leave them out", 2)

    def write() -> Exported:
        return export_log(log, to, out, content=content, overwrite=overwrite, rewards=rewards)

    _say_exported(or_exit(write), as_json)


def redact(
    log: LogArgument,
    out: Annotated[Path, typer.Option(help="Log to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a log without what people and models wrote; counts, times, rules and settings stay."""
    from agent.export import redact_log

    _say_exported(or_exit(lambda: redact_log(log, out, overwrite=overwrite)), as_json)


def _say_exported(done: Exported, as_json: bool) -> None:
    skipped = f"; {len(done.skipped)} lines of the log hold no episode" if done.skipped else ""
    typer.echo(
        json.dumps(done.as_dict())
        if as_json
        else f"{done.out}: {done.rows} rows from {done.episodes} episodes{skipped}"
    )
