"""Compares the summaries of two reports, metric by metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.errors import ComparisonError

MAX_BYTES = 256 * 2**20
RATES = ("consult", "refusal", "safe")
MEANS = ("reward", "tokens", "seconds")


def read_summary(report: Path) -> dict[str, Any]:
    """Reads the metrics of a report from its folder or its `summary.json`.

    Raises:
        ComparisonError: the file is missing or has a different format.
    """
    path = report / "summary.json" if report.is_dir() else report
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ComparisonError(f"'{report}' is not a report: pass a folder that `ascl-eval report` wrote")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        arms = {arm["name"]: arm["kinds"] for arm in summary["arms"]}
        if not all(isinstance(name, str) for name in arms):
            raise TypeError("a name is not text")
        compare_reports(summary, summary)  # fails if the form is not that of a report
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise ComparisonError(f"{path} is not a summary of a report") from None
    if summary.get("schema_version") != 1 or not arms:
        raise ComparisonError(f"{path} is a summary from a different version")
    assert isinstance(summary, dict)
    return summary


def compare_reports(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes of every arm and kind that both reports contain.

    A difference of two rates is `sure` if their 95% intervals do not overlap. `only_first` and `only_second`
    name the arms that the other report lacks.
    """
    before = {arm["name"]: arm for arm in first["arms"]}
    after = {arm["name"]: arm for arm in second["arms"]}
    rows = [
        row
        for name in before
        if name in after
        for kind in before[name]["kinds"]
        if kind in after[name]["kinds"]
        for row in _rows(name, kind, before[name]["kinds"][kind], after[name]["kinds"][kind])
    ]
    scorers = [(before[name].get("scorers"), after[name].get("scorers")) for name in before if name in after]
    if any(None in pair for pair in scorers):  # older summaries have one list for all arms
        scorers = [(first.get("scorers"), second.get("scorers"))]
    return {
        "rows": rows,
        "only_first": sorted(before.keys() - after.keys()),
        "only_second": sorted(after.keys() - before.keys()),
        "scorers_differ": any(first_value != second_value for first_value, second_value in scorers),
    }


def _rows(arm: str, kind: str, before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in RATES:
        first_value, second_value = before.get(name), after.get(name)
        if (
            first_value
            and second_value
            and first_value["share"] is not None
            and second_value["share"] is not None
        ):
            apart = second_value["low"] > first_value["high"] or second_value["high"] < first_value["low"]
            rows.append(_row(arm, kind, name, first_value["share"], second_value["share"], apart))
    for name in MEANS:
        first_value, second_value = before.get(name), after.get(name)
        if first_value is not None and second_value is not None:
            rows.append(_row(arm, kind, name, first_value, second_value, None))
    return rows


def _row(arm: str, kind: str, figure: str, before: float, after: float, sure: bool | None) -> dict[str, Any]:
    before, after = float(before), float(after)  # raises OverflowError for integers that only JSON supports
    return {
        "arm": arm,
        "kind": kind,
        "figure": figure,
        "first": before,
        "second": after,
        "change": round(after - before, 6) + 0.0,
        "sure": sure,
    }
