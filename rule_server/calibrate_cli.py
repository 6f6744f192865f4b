"""What `ascl-rules calibrate` does and prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rule_server.artefact import Artefact
from rule_server.calibrate import (
    FIND,
    NOTHING,
    Report,
    Threshold,
    calibrate,
    plot,
    read_labelled,
    score_all,
    threshold_of,
)
from rule_server.prepare import Say, prepare
from rule_server.settings import Settings


def measure(
    settings: Settings,
    say: Say,
    files: list[Path],
    *,
    misses: float,
    find: list[str] | None,
    nothing: list[str] | None,
    plot_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Calibrate, keep the threshold unless `dry_run`, print what was measured. Raises RuleServiceError."""
    rows = read_labelled(files)
    prepared = prepare(settings, say)
    index = prepared.index
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=len(rows))
        scored = score_all(index, prepared.encoder, rows, lambda done: progress.advance(task, done))
    report = calibrate(scored, index, misses=misses, find=find or FIND, nothing=nothing or NOTHING)
    before = threshold_of(index, None)
    if not dry_run:
        Artefact(settings.artefact).save_calibration(index.rulebook.digest, report.calibration)
    if plot_file is not None:
        plot(report, plot_file)
    if as_json:
        typer.echo(json.dumps(report.as_dict() | {"before": _shown(before), "kept": not dry_run}, indent=1))
    else:
        _print(report, before, kept=not dry_run)
    if settings.threshold is not None:
        say(f"ASCL_RULES_THRESHOLD is set, so {settings.threshold} is used instead")


def show(settings: Settings, say: Say, *, as_json: bool) -> None:
    """Print the threshold in force for a rulebook, and the calibration behind it. Raises RuleServiceError."""
    index = prepare(settings, say).index
    threshold = threshold_of(index, settings.threshold)
    if as_json:
        kept = asdict(index.calibration) if index.calibration is not None else None
        typer.echo(json.dumps({"in_force": _shown(threshold), "calibration": kept}, indent=1))
        return
    typer.echo(f"threshold {threshold.value:.4f}: {threshold.note}")
    if index.calibration is not None:
        found = index.calibration
        typer.echo(f"calibrated: {found.threshold:.4f}, {found.rule}; {found.prompts} prompts")


def _shown(threshold: Threshold) -> dict[str, Any]:
    return {"threshold": threshold.value, "origin": threshold.origin}


def _print(report: Report, before: Threshold, *, kept: bool) -> None:
    console = Console()
    found = report.calibration
    console.print(f"threshold {found.threshold:.4f}: {found.rule}", soft_wrap=True)
    console.print(f"before: {before.value:.4f}, {before.note}", soft_wrap=True)
    table = Table("kind", "source", "prompts", "find nothing", "95 % interval")
    for row in report.kinds:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        table.add_row(row["kind"], row["source"], str(row["prompts"]), f"{row['nothing']:.3f}", interval)
    console.print(table)
    if report.cross_validation:
        table = Table(
            "left out", "threshold of the others", "must find: found nothing", "must not: found nothing"
        )
        for row in report.cross_validation:
            shares = [
                "-" if (share := row[f"must_{name}_found_nothing"]) is None else f"{share:.3f}"
                for name in ("find", "nothing")
            ]
            table.add_row(row["source"], f"{row['threshold']:.4f}", *shares)
        console.print(table)
    table = Table("threshold", *found.nothing, title="share that finds nothing")
    for point in report.curve[::5]:
        table.add_row(f"{point['threshold']:.3f}", *(f"{point[kind]:.2f}" for kind in found.nothing))
    console.print(table)
    console.print("kept in the index" if kept else "nothing was kept")
