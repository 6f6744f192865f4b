"""Runs `ascl-rules calibrate` and prints its results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rule_server.authoring import (
    MUST_FIND_KINDS,
    MUST_FIND_NOTHING_KINDS,
    CalibrationReport,
    calibrate,
    plot_curve,
    read_labelled_prompts,
    score_prompts,
)
from rule_server.cli.options import print_json, progress
from rule_server.cli.terminal import print_table, print_text
from rule_server.errors import ArtefactError
from rule_server.retrieval import Threshold
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import Notify, load_or_build
from rule_server.retrieval.index import threshold_for
from rule_server.settings import Settings

SHOWN_RULES = 10
"""Number of rules that are never first and listed in the text."""


def measure(
    settings: Settings,
    notify: Notify,
    files: list[Path],
    *,
    misses: float,
    find: list[str] | None,
    nothing: list[str] | None,
    plot_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Calibrates, prints the measurements, and stores the threshold unless `dry_run`.

    Raises RuleServiceError.
    """
    rows = read_labelled_prompts(files)
    loaded = load_or_build(settings, notify, make_current=False)
    index = loaded.index
    artefact = Artefact(settings.artefact)
    if not dry_run and artefact.encoder_of(index.rulebook.digest) not in (None, index.fingerprint):
        raise ArtefactError(
            f"{artefact.folder} indexes these rules with a different encoder: "
            "run `ascl-rules build` with this one first"
        )
    with progress("querying", len(rows)) as advance:
        scored = score_prompts(index, loaded.encoder, rows, advance)
    report = calibrate(
        scored, index, misses=misses, find=find or MUST_FIND_KINDS, nothing=nothing or MUST_FIND_NOTHING_KINDS
    )
    before = threshold_for(index, None)
    if not dry_run:
        artefact.save_calibration(index.rulebook.digest, report.calibration)
    if plot_file is not None:
        plot_curve(report, plot_file)
    if as_json:
        print_json(report.as_dict() | {"before": _threshold_dict(before), "kept": not dry_run})
    else:
        _print_report(report, before, kept=not dry_run)
    if settings.threshold is not None:
        notify(f"ASCL_RULES_THRESHOLD is set, so {settings.threshold} is used instead")


def show(settings: Settings, notify: Notify, *, as_json: bool) -> None:
    """Prints the current threshold of a rulebook and its calibration. Raises RuleServiceError."""
    index = load_or_build(settings, notify, make_current=False).index
    threshold = threshold_for(index, settings.threshold)
    calibration = index.calibration
    if as_json:
        stored = asdict(calibration) if calibration is not None else None
        print_json({"in_force": _threshold_dict(threshold), "calibration": stored})
        return
    print_text(f"threshold {threshold.value:.4f}: {threshold.note}")
    if calibration is not None:
        prompts = f"{calibration.prompts} prompts"
        print_text(f"calibrated: {calibration.threshold:.4f}, {calibration.rule}; {prompts}")


def _threshold_dict(threshold: Threshold) -> dict[str, Any]:
    return {"threshold": threshold.value, "origin": threshold.origin}


def _print_report(report: CalibrationReport, before: Threshold, *, kept: bool) -> None:
    calibration = report.calibration
    print_text(f"threshold {calibration.threshold:.4f}: {calibration.rule}")
    print_text(f"before: {before.value:.4f}, {before.note}")
    print_text("\nshare that matches no rule")
    rows = [("kind", "source", "prompts", "share", "95 % interval")]
    for row in report.kinds:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        rows.append((row["kind"], row["source"], str(row["prompts"]), f"{row['nothing']:.3f}", interval))
    print_table(rows, cut=(0, 1))
    if report.cross_validation:
        print_text("\neach source at the threshold from the other sources: share that matches no rule")
        rows = [("source", "threshold", "must match", "must not match", "")]
        for row in report.cross_validation:
            shares = [row[f"must_{name}_found_nothing"] for name in ("find", "nothing")]
            find, nothing = ("-" if share is None else f"{share:.3f}" for share in shares)
            rows.append((row["source"] or "(none)", f"{row['threshold']:.4f}", find, nothing, ""))
        print_table(rows, cut=(0,))
    print_text("\ncurve: share that matches no rule, by threshold")
    print_table(
        [
            ("threshold", *calibration.nothing),
            *(
                (f"{point['threshold']:.3f}", *(f"{point[kind]:.2f}" for kind in calibration.nothing))
                for point in report.curve[::5]
            ),
        ],
        cut=range(1, len(calibration.nothing) + 1),
    )
    _print_rules(report)
    print_text("\nsaved to the index" if kept else "\nnot saved (--dry-run)")


def _print_rules(report: CalibrationReport) -> None:
    if report.greedy_rules:
        print_text("\nrules that come first for many prompts that must match none: reword their texts")
        rows = [("rule", "prompts", "share")]
        rows += [(row["rule"], str(row["prompts"]), f"{row['share']:.3f}") for row in report.greedy_rules]
        print_table(rows, cut=(0,))
    if never := report.never_first:
        print_text(f"\nnever first for these prompts: {len(never)} rules")
        more = [f"and {len(never) - SHOWN_RULES} more: see --json"] if len(never) > SHOWN_RULES else []
        print_text("  " + ", ".join([*never[:SHOWN_RULES], *more]))
