"""What `ascl-rules calibrate` does and prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from rule_server.authoring import (
    KINDS_THAT_FIND,
    KINDS_THAT_FIND_NOTHING,
    Report,
    calibrate,
    plot,
    read_labelled,
    score_all,
)
from rule_server.cli.options import print_json, print_table, progress
from rule_server.errors import ArtefactError
from rule_server.retrieval import Threshold
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import Notify, load_or_build
from rule_server.retrieval.index import threshold_for
from rule_server.settings import Settings


def measure(
    settings: Settings,
    say: Notify,
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
    prepared = load_or_build(settings, say, make_current=False)
    index = prepared.index
    store = Artefact(settings.artefact)
    if not dry_run and store.made_with(index.rulebook.digest) not in (None, index.fingerprint):
        raise ArtefactError(
            f"{store.folder} keeps these rules for another encoder: `ascl-rules build` with this one first"
        )
    with progress("asking", len(rows)) as advance:
        scored = score_all(index, prepared.encoder, rows, advance)
    report = calibrate(
        scored, index, misses=misses, find=find or KINDS_THAT_FIND, nothing=nothing or KINDS_THAT_FIND_NOTHING
    )
    before = threshold_for(index, None)
    if not dry_run:
        store.save_calibration(index.rulebook.digest, report.calibration)
    if plot_file is not None:
        plot(report, plot_file)
    if as_json:
        print_json(report.as_dict() | {"before": _shown(before), "kept": not dry_run})
    else:
        _print(report, before, kept=not dry_run)
    if settings.threshold is not None:
        say(f"ASCL_RULES_THRESHOLD is set, so {settings.threshold} is used instead")


def show(settings: Settings, say: Notify, *, as_json: bool) -> None:
    """Print the threshold in force for a rulebook, and the calibration behind it. Raises RuleServiceError."""
    index = load_or_build(settings, say, make_current=False).index
    threshold = threshold_for(index, settings.threshold)
    if as_json:
        kept = asdict(index.calibration) if index.calibration is not None else None
        print_json({"in_force": _shown(threshold), "calibration": kept})
        return
    typer.echo(f"threshold {threshold.value:.4f}: {threshold.note}")
    if index.calibration is not None:
        found = index.calibration
        typer.echo(f"calibrated: {found.threshold:.4f}, {found.rule}; {found.prompts} prompts")


def _shown(threshold: Threshold) -> dict[str, Any]:
    return {"threshold": threshold.value, "origin": threshold.origin}


def _print(report: Report, before: Threshold, *, kept: bool) -> None:
    found = report.calibration
    typer.echo(f"threshold {found.threshold:.4f}: {found.rule}")
    typer.echo(f"before: {before.value:.4f}, {before.note}")
    typer.echo("\nshare that finds nothing")
    rows = [("kind", "source", "prompts", "share", "95 % interval")]
    for row in report.kinds:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        rows.append((row["kind"], row["source"], str(row["prompts"]), f"{row['nothing']:.3f}", interval))
    print_table(rows)
    if report.cross_validation:
        typer.echo("\neach source at the threshold that the others give: share that finds nothing")
        rows = [("source", "threshold", "must find", "must not", "")]
        for row in report.cross_validation:
            shares = [row[f"must_{name}_found_nothing"] for name in ("find", "nothing")]
            shown = ["-" if share is None else f"{share:.3f}" for share in shares]
            rows.append((row["source"] or "(none)", f"{row['threshold']:.4f}", shown[0], shown[1], ""))
        print_table(rows)
    typer.echo("\nthe curve: share that finds nothing by threshold")
    print_table(
        [
            ("threshold", *found.nothing),
            *(
                (f"{point['threshold']:.3f}", *(f"{point[kind]:.2f}" for kind in found.nothing))
                for point in report.curve[::5]
            ),
        ]
    )
    typer.echo("\nkept in the index" if kept else "\nnothing was kept")
