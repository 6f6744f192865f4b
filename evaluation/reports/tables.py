"""Formats rates, differences and tests as the cells of a report's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = tuple[str, ...]


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


def mcnemar_text(test: dict[str, Any] | None) -> str:
    """Formats McNemar's test: better and worse in the other arm, and p."""
    if test is None:
        return "–"
    p = "<0.001" if test["p"] < 0.001 else f"{test['p']:.3f}"
    return f"{test['other_only']} : {test['first_only']}, {p}"


def table(columns: tuple[str, ...], body: Sequence[Row]) -> str:
    """Formats a table in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *body)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
