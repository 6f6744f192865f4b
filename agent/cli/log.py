"""The commands that read a log: `show`, `validate`, `export` and `redact`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.cli.options import AsJson, LogArgument, exit_on_error, fail

if TYPE_CHECKING:
    from agent.export import ExportSummary


def register_log_commands(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command(epilog="Example: ascl-agent show runs/train.jsonl 3f2a")(show)
    app.command(epilog="Example: ascl-agent validate runs/train.jsonl --json")(validate)
    app.command(epilog="Example: ascl-agent export runs/train.jsonl --to trl --out train.parquet")(export)
    app.command(epilog="Example: ascl-agent redact runs/train.jsonl --out shareable.jsonl")(redact)


def show(
    log: LogArgument,
    episode: Annotated[str | None, typer.Argument(help="Episode ID or prefix, or PROMPT_ID#SAMPLE.")] = None,
    stable: Annotated[
        bool, typer.Option("--stable", help="Omit IDs, URLs and times, to compare two episodes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the episodes in a log, or show one of them in full."""
    from agent.cli.tables import print_episode, print_table, row, select
    from agent.episode import read_log

    reading = exit_on_error(lambda: read_log(log))
    if reading.skipped:
        first = reading.skipped[0]
        typer.echo(
            f"ascl-agent: {len(reading.skipped)} lines of {log} are not episodes (line {first.line}: "
            f"{first.reason})",
            err=True,
        )
    if episode is not None:
        selected = exit_on_error(lambda: select(reading.episodes, episode, log))
        typer.echo(selected.model_dump_json(indent=2)) if as_json else print_episode(selected, stable=stable)
    elif as_json:
        typer.echo(json.dumps([row(each) for each in reading.episodes], ensure_ascii=False))
    else:
        print_table(reading.episodes)


def validate(log: LogArgument, as_json: AsJson = False) -> None:
    """Check that every line of a log is a consistent episode. Exits with 1 if there are problems."""
    from agent.episode import validate_log

    episodes, problems = exit_on_error(lambda: validate_log(log))
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
            "spans; `consultations`: input of `ascl-rules stats`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    content: Annotated[
        bool, typer.Option("--content", help="otel: include message texts in the spans.")
    ] = False,
    rewards: Annotated[
        Path | None,
        typer.Option(
            help="inspect: output of `ascl-eval score` for this log, included as scores (default: no scores)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a log to another tool's format."""
    from agent.export import export_log

    if rewards is not None and to != "inspect":
        fail(f"--rewards applies to --to inspect only, not to --to {to}: omit it", 2)

    def write() -> ExportSummary:
        return export_log(log, to, out, content=content, overwrite=overwrite, rewards=rewards)

    _print_summary(exit_on_error(write), as_json)


def redact(
    log: LogArgument,
    out: Annotated[Path, typer.Option(help="Log to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a log with all user and model text removed; counts, times, rules and settings are kept."""
    from agent.export import redact_log

    _print_summary(exit_on_error(lambda: redact_log(log, out, overwrite=overwrite)), as_json)


def _print_summary(summary: ExportSummary, as_json: bool) -> None:
    skipped = f"; {len(summary.skipped)} lines of the log are not episodes" if summary.skipped else ""
    typer.echo(
        json.dumps(summary.as_dict())
        if as_json
        else f"{summary.out}: {summary.rows} rows from {summary.episodes} episodes{skipped}"
    )
