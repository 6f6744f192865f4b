"""Renders a report: Markdown tables, charts and one HTML page that opens offline."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from evaluation.metrics import HIT_AT
from evaluation.reports import figures
from evaluation.runtime import write_atomic

TEMPLATES = Path(__file__).parent
COLUMNS = ("arm", "kind", "n", "consult rate", "refusal rate", "mean reward", "D")
CHANGE_COLUMNS = (
    "change",
    "kind",
    "consult rate",
    "refusal rate",
    "mean reward",
    "tokens",
    "seconds",
    "better : worse, p",
)
ARM_COLUMNS = ("arm", "contrast pairs right", f"retrieval hit@{HIT_AT}", "unjudged", "forced", "errors")


def write_report(summary: dict[str, Any], out: Path) -> list[Path]:
    """Writes `summary.json`, `consult_rates.png` and `report.html` into a folder; creates it if needed.

    Raises:
        OSError: the folder cannot be written.
    """
    rates = figures.consult_rates(summary)
    contents = {
        "summary.json": (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode(),
        "consult_rates.png": rates,
        "report.html": page(summary, rates, figures.tradeoff(summary)).encode(),
    }
    for name, content in contents.items():
        write_atomic(out / name, content, private=False)
    return [out / name for name in contents]


def page(summary: dict[str, Any], rates: bytes, tradeoff: bytes | None) -> str:
    """Renders the report as one HTML page with embedded charts; escapes all text from logs."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        summary=summary,
        columns=COLUMNS,
        rows=rows(summary),
        arm_columns=ARM_COLUMNS,
        arm_rows=arm_rows(summary),
        change_columns=CHANGE_COLUMNS,
        change_rows=change_rows(summary),
        rates=base64.b64encode(rates).decode(),
        tradeoff=base64.b64encode(tradeoff).decode() if tradeoff else None,
        difference=difference,
        percent=percent,
        number=number,
    )


def rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells of the main table as text, one row per arm and kind."""
    return [
        (
            arm["name"],
            kind,
            str(figures_of_kind["n"]),
            percent(figures_of_kind["consult"]),
            percent(figures_of_kind["refusal"]),
            number(figures_of_kind["reward"]),
            difference(figures_of_kind["advantage_of_consulting"]),
        )
        for kind in summary["kinds"]
        for arm in summary["arms"]
        if (figures_of_kind := arm["kinds"].get(kind))
    ]


def change_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells of the table of changes from the first arm to each other arm, as text."""
    return [
        (
            f"{change['from']} → {change['to']}",
            change["kind"],
            difference(change["consult"], points=True),
            difference(change["refusal"], points=True),
            difference(change["reward"]),
            difference(change["tokens"], digits=0),
            difference(change["seconds"], digits=1),
            _format_mcnemar(change["mcnemar"]),
        )
        for change in summary["changes"]
    ]


def arm_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells of the table of metrics over a whole arm, as text."""
    rows: list[tuple[str, ...]] = []
    for arm in summary["arms"]:
        kinds = arm["kinds"].values()
        unjudged = sum(kind["unjudged"]["hits"] for kind in kinds)
        judged = sum(kind["unjudged"]["n"] for kind in kinds)
        rows.append(
            (
                arm["name"],
                percent(arm["contrast_pairs"]) if arm["contrast_pairs"] else "–",
                percent(hits) if (hits := arm[f"retrieval_hit_at_{HIT_AT}"]) else "–",
                f"{unjudged} of {judged}",
                str(arm["mode_forced"]),
                str(arm["episodes"] - sum(kind["n"] for kind in kinds)),
            )
        )
    return rows


def _format_mcnemar(test: dict[str, Any] | None) -> str:
    if test is None:
        return "–"
    p = "<0.001" if test["p"] < 0.001 else f"{test['p']:.3f}"
    return f"{test['other_only']} : {test['first_only']}, {p}"


def markdown_table(summary: dict[str, Any]) -> str:
    """Formats the tables and the findings for a terminal or a file."""
    parts = [_table(COLUMNS, rows(summary)), _table(ARM_COLUMNS, arm_rows(summary))]
    if summary["changes"]:
        parts.append(_table(CHANGE_COLUMNS, change_rows(summary)))
    parts.append("\n".join(f"- {finding}" for finding in summary["findings"]))
    parts.append(
        "In brackets: 95% intervals. D: mean reward of consulting minus that of answering directly.\n"
        "better : worse: prompts with a good outcome in one arm only, with McNemar's exact p.\n"
        f"To reproduce: {summary['command']}"
    )
    return "\n\n".join(part for part in parts if part)


def percent(rate: dict[str, Any]) -> str:
    """Formats a rate with its interval in percent."""
    if rate["share"] is None:
        return "–"
    return f"{100 * rate['share']:.1f}% [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def number(value: float | None, digits: int = 3) -> str:
    """Formats a number; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def difference(value: dict[str, Any] | None, *, points: bool = False, digits: int = 3) -> str:
    """Formats a signed difference with its interval; with `points` as percentage points with one digit."""
    if value is None:
        return "–"
    scale, digits = (100, 1) if points else (1, digits)
    text = f"{scale * value['value']:+.{digits}f}"
    if value["low"] is None:
        return f"{text} [–]"
    return f"{text} [{scale * value['low']:+.{digits}f}, {scale * value['high']:+.{digits}f}]"


def comparison_table(comparison: dict[str, Any]) -> str:
    """Formats the comparison of two reports for a terminal or a file."""
    parts = [
        _table(
            ("arm", "kind", "metric", "first", "second", "change", ""),
            [
                (
                    *(row["arm"], row["kind"], row["figure"], number(row["first"]), number(row["second"])),
                    *(f"{row['change']:+.3f}", "intervals apart" if row["sure"] else ""),
                )
                for row in comparison["rows"]
            ],
        )
    ]
    for side in ("first", "second"):
        if comparison[f"only_{side}"]:
            parts.append(f"Only in the {side}: {', '.join(comparison[f'only_{side}'])}")
    if comparison["scorers_differ"]:
        parts.append("The reports used different scorers, which may explain a difference.")
    return "\n\n".join(parts)


def _table(columns: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *body)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
