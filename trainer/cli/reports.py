"""`ascl-train check` and `plot`: inspect an episode, and compare runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.common import AsJson, Overwrite, exit_on_error, fail, refuse_existing


def register(app: typer.Typer) -> None:
    """Adds the commands to `ascl-train`."""
    app.command(
        epilog="Example: ascl-train check runs/groups.parquet --model runs/cold-start/merged --episode ID"
    )(check)
    app.command("check-template", epilog="Example: ascl-train check-template runs/cold-start/merged")(
        check_template
    )
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


def check_template(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, name of a cached Hugging Face model, or a .jinja file.", show_default=False
        ),
    ],
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer for a .jinja file (default: one of bytes).")
    ] = None,
    template_option: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE for the template, such as enable_thinking=false; repeatable (default: none)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check what training does with a chat template. Exits with 1 if it does not support tools."""
    from agent.cli.options import parse_template_options
    from trainer.stages.monitoring import silence_libraries

    with exit_on_error(), silence_libraries():
        from trainer.reports.template_report import format_report, report_on_template

        report, warning = report_on_template(model, tokenizer, parse_template_options(template_option))
    if as_json:
        typer.echo(json.dumps({**report.as_json(), "warning": warning}, ensure_ascii=False))
    else:
        typer.echo(format_report(report))
    if warning:
        typer.echo(f"ascl-train: warning: {warning}", err=True)
    if not report.supports_tools:
        fail(
            f"the chat template of '{model}' does not support tool calls: use a model whose template does, "
            "or replace the template",
            1,
        )
    if any(result.outcome == "wrong" for result in report.results):
        fail(f"training on the chat template of '{model}' would be wrong in the cases marked so", 1)


def plot(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, from a stage or a loop.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs.png, runs.html and runs.json.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Plot runs side by side: consult rate by kind, reward by mode, weights, drift. Writes PNG and HTML."""
    refuse_existing(out / "runs.html", overwrite)
    with exit_on_error():
        from trainer.reports import plot_runs

        comparison = plot_runs(runs, out)
    if as_json:
        typer.echo(json.dumps(comparison.as_json()))
        return
    for note in comparison.notes:
        typer.echo(note)
    typer.echo("wrote " + ", ".join(str(path) for path in comparison.written))
