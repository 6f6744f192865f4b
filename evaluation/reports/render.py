"""Renders a report: Markdown tables, charts and one HTML page that opens offline."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from evaluation.metrics import HIT_AT
from evaluation.reports import figures
from evaluation.reports.conversations import conversation_markdown, conversation_page
from evaluation.reports.tables import difference, mcnemar_text, number, percent, table
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

    Adds `conversations.html` if the summary has a part about conversations.

    Raises:
        OSError: the folder cannot be written.
    """
    rates = figures.consult_rates(summary)
    contents = {
        "summary.json": (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode(),
        "consult_rates.png": rates,
        "report.html": page(summary, rates, figures.tradeoff(summary)).encode(),
    }
    if "conversations" in summary:
        contents["conversations.html"] = conversation_page(summary["conversations"]).encode()
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
            mcnemar_text(change["mcnemar"]),
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


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings and rows."""


def tables(summary: dict[str, Any]) -> list[Table]:
    """Returns the main tables of a report; `notes` follow them."""
    changes = [(CHANGE_COLUMNS, change_rows(summary))] if summary["changes"] else []
    return [(COLUMNS, rows(summary)), (ARM_COLUMNS, arm_rows(summary)), *changes]


def notes(summary: dict[str, Any]) -> list[str]:
    """Returns the text after the tables: conversations, findings, and the command that reproduces the
    report."""
    return [
        *(conversation_markdown(summary["conversations"]) if "conversations" in summary else []),
        "\n".join(f"- {finding}" for finding in summary["findings"]),
        "In brackets: 95% intervals. D: mean reward of consulting minus that of answering directly.\n"
        "better : worse: prompts with a good outcome in one arm only, with McNemar's exact p.\n"
        f"To reproduce: {summary['command']}",
    ]


def markdown_table(summary: dict[str, Any]) -> str:
    """Formats the tables and the findings as Markdown."""
    parts = [*(table(*each) for each in tables(summary)), *notes(summary)]
    return "\n\n".join(part for part in parts if part)


COMPARISON_COLUMNS = ("arm", "kind", "metric", "first", "second", "change", "")


def comparison_rows(comparison: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells of the comparison of two reports as text."""
    return [
        (
            *(row["arm"], row["kind"], row["figure"], number(row["first"]), number(row["second"])),
            *(f"{row['change']:+.3f}", "intervals apart" if row["sure"] else ""),
        )
        for row in comparison["rows"]
    ]


def comparison_notes(comparison: dict[str, Any]) -> list[str]:
    """Returns notes on the parts that the comparison of two reports leaves out."""
    parts = []
    for side in ("first", "second"):
        if comparison[f"only_{side}"]:
            parts.append(f"Only in the {side}: {', '.join(comparison[f'only_{side}'])}")
    if comparison["scorers_differ"]:
        parts.append("The reports used different scorers, which may explain a difference.")
    return parts


def comparison_table(comparison: dict[str, Any]) -> str:
    """Formats the comparison of two reports as Markdown."""
    return "\n\n".join(
        [table(COMPARISON_COLUMNS, comparison_rows(comparison)), *comparison_notes(comparison)]
    )
