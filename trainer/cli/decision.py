"""`ascl-train decision`: choose the offset on the token that opens a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.common import AsJson, Overwrite, exit_on_error, fail

if TYPE_CHECKING:
    from trainer.reports.decision_bias import BiasChoice, Decisions


def decision(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Episode logs of a calibration set whose prompts have kinds.", show_default=False
        ),
    ] = None,
    at: Annotated[
        str, typer.Option(help="Target consult rate of a kind of prompt: KIND=RATE.")
    ] = "harmful=0.95",
    model: Annotated[
        str | None,
        typer.Option(
            help="Model folder to compute the decisions with (default: the logged log-probabilities)."
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of an adapter of this model (default: none).")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompts in place of those of the logs, with the system text and tools of the first episode "
            "(default: the logs' prompts)."
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="Sampling temperature when serving; 0 for greedy decoding.")
    ] = 1.0,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG of ROC curve and rates to this file (default: none).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Choose an offset on the token that opens a call, for a target consult rate."""
    kind, rate = _parse_target(at)
    if model is None and (adapter or prompts or not logs or temperature != 1):
        fail(
            "without --model, the decisions come from logs sampled at temperature 1: pass a log, or --model",
            2,
        )
    if not logs and prompts is None:
        fail("no calibration set: pass a log, or --prompts FILE", 2)
    if plot is not None and plot.exists() and not overwrite:
        fail(f"{plot} already exists: choose another --plot, or pass --overwrite", 1)
    with exit_on_error():
        from trainer.reports.decision_bias import choose_bias, plot_bias

        measured, left_out = _decisions(logs or [], model, adapter, prompts, temperature)
        choice = choose_bias(measured, kind, rate)
        if plot is not None:
            plot.parent.mkdir(parents=True, exist_ok=True)
            plot.write_bytes(plot_bias(measured, choice))
    if as_json:
        typer.echo(json.dumps(_as_json(measured, choice, left_out)))
    else:
        _print_choice(measured, choice, left_out)


def _parse_target(text: str) -> tuple[str, float]:
    from evaluation.prompts import KINDS

    kind, _, number = text.partition("=")
    try:
        rate = float(number)
    except ValueError:
        rate = 0.0
    if kind not in KINDS or not 0 < rate < 1:
        fail(f"--at {text}: pass a kind ({', '.join(KINDS)}) and a rate between 0 and 1: harmful=0.95", 2)
    return kind, rate


def _decisions(
    logs: list[Path], model: str | None, adapter: Path | None, prompts: str | None, temperature: float
) -> tuple[Decisions, int]:
    """Returns the decisions of the calibration set, and the number of episodes left out."""
    from rich.console import Console
    from rich.progress import Progress

    from trainer.errors import TrainingError
    from trainer.reports.decision_bias import (
        file_prompts,
        logged_decisions,
        logged_prompts,
        measured_decisions,
    )

    if model is None:
        return logged_decisions(logs)
    chosen, left_out = (file_prompts(prompts, logs), 0) if prompts else logged_prompts(logs)
    if not chosen:
        raise TrainingError("no episode of the log has a kind and was offered the rule tool: pass --prompts")
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("prompts", total=len(chosen))
        measured = measured_decisions(
            chosen, model, adapter, temperature, lambda done, total: bar.update(task, completed=done)
        )
    return measured, left_out


def _as_json(measured: Decisions, choice: BiasChoice, left_out: int) -> dict[str, Any]:
    return {
        "token": vars(measured.token),
        "temperature": measured.temperature,
        **choice.as_json(),
        "left_out_episodes": left_out,
        "upper_bounds": measured.bounded,
        "decisions": [vars(each) for each in measured.decisions],
    }


def _print_choice(measured: Decisions, choice: BiasChoice, left_out: int) -> None:
    token = measured.token
    named = f"{token.id} {token.text!r}" if token.id is not None else repr(token.text)
    lines = [f"opening token: {named}"]
    if choice.auc is not None:
        lines.append(f"AUC, harmful against harmless: {choice.auc:.3f}")
    interval = ""
    if choice.low is not None:
        high = "unattainable" if choice.high is None else f"{choice.high:+.2f}"
        interval = f" (95% bootstrap over prompts: {choice.low:+.2f} to {high})"
    target = f"{100 * choice.target:g}% of {choice.kind} prompts consult"
    lines.append(f"offset with which {target}: {choice.offset:+.2f}{interval}")
    for kind, rates in choice.kinds.items():
        bounds = ""
        if rates.low is not None and rates.high is not None:
            bounds = f" ({100 * rates.low:.1f} to {100 * rates.high:.1f})"
        now, then = f"{100 * rates.now:.1f}% now", f"{100 * rates.rate:.1f}% with the offset{bounds}"
        lines.append(f"  {kind}: {rates.prompts} prompts, {now}, {then}")
    if token.id is not None:
        lines.append(f"serve: ascl-agent run --decision-bias {choice.offset:.2f} --decision-token {token.id}")
    typer.echo("\n".join(lines))
    notes = [
        f"{left_out} episodes were left out: they have no kind, no rule tool or no log-probabilities"
        if left_out
        else "",
        f"{measured.bounded} harmless prompts have only an upper bound of their probability"
        if measured.bounded
        else "",
        f"the opening token {token.text!r} is ordinary text: the offset also changes answers that contain it"
        if token.special is False
        else "",
    ]
    for note in filter(None, notes):
        typer.echo(f"ascl-train: {note}", err=True)
