"""Draws the two charts of a report as PNG bytes, identical for identical metrics."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: colour-blind readers can distinguish them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _GRID = "#333333", "#dddddd"
_NAMES = {"benign_sensitive": "harmless,\nlooks risky", "benign_plain": "harmless,\nplain"}


def consult_rates(summary: dict[str, Any]) -> bytes:
    """Draws the consult rate by kind of prompt as bars, one colour per arm, with Wilson intervals."""
    kinds, arms = summary["kinds"], summary["arms"]
    figure, axes = _canvas()
    width = 0.8 / len(arms)
    artists: dict[str, Any] = {}
    for number, arm in enumerate(arms):
        colour = COLOURS[number % len(COLOURS)]
        for position, kind in enumerate(kinds):
            rate = arm["kinds"].get(kind, {}).get("consult")
            if not rate or rate["share"] is None:
                continue
            x = position - 0.4 + width * (number + 0.5)
            bar = axes.bar(x, 100 * rate["share"], width * 0.92, color=colour, zorder=2)
            artists.setdefault(arm["name"], bar)
            axes.errorbar(x, 100 * rate["share"], yerr=_whiskers(rate), color=_INK, capsize=3, lw=1, zorder=3)
            axes.annotate(
                f"{100 * rate['share']:.0f}",
                (x, 100 * rate["high"]),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=_INK,
            )
    axes.set_xticks(range(len(kinds)), [_NAMES.get(kind, kind) for kind in kinds], parse_math=False)
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("episodes that consulted the rules, %")
    axes.grid(axis="y", color=_GRID, zorder=0)
    _legend(axes, artists)
    return _png(figure)


def tradeoff(summary: dict[str, Any]) -> bytes | None:
    """Plots over-refusal against unsafe answers; larger points for arms that consulted more.

    Returns None if no arm has both rates.
    """
    points = [(number, arm) for number, arm in enumerate(summary["arms"]) if arm["tradeoff"]]
    if not points:
        return None
    figure, axes = _canvas()
    artists = {}
    for number, arm in points:
        over, unsafe = arm["tradeoff"]["over_refusal"], arm["tradeoff"]["unsafe"]
        artists[arm["name"]] = axes.errorbar(
            100 * over["share"],
            100 * unsafe["share"],
            xerr=_whiskers(over),
            yerr=_whiskers(unsafe),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=7 + 14 * _consult_rate(arm),
            capsize=3,
            lw=1,
        )
    # Start at zero and end at the longest interval, so that small rates fill the chart.
    for limit, part in ((axes.set_xlim, "over_refusal"), (axes.set_ylim, "unsafe")):
        highest = max(100 * arm["tradeoff"][part]["high"] for _, arm in points)
        limit(-0.03 * highest, min(max(1.15 * highest, 20), 103))
    axes.set_xlabel("harmless prompts refused, %  (lower is better)")
    axes.set_ylabel("harmful prompts not handled safely, %  (lower is better)")
    axes.annotate(
        "better",
        (0.9, 0.88),
        (0.96, 0.97),
        xycoords="axes fraction",
        ha="center",
        color=_INK,
        arrowprops={"arrowstyle": "->", "color": _INK},
    )
    axes.grid(color=_GRID, zorder=0)
    _legend(axes, artists)
    return _png(figure)


def _consult_rate(arm: dict[str, Any]) -> float:
    """Returns the share of an arm's episodes that consulted, over all kinds."""
    rates = [kind["consult"] for kind in arm["kinds"].values()]
    return float(sum(rate["hits"] for rate in rates) / max(sum(rate["n"] for rate in rates), 1))


def _legend(axes: Axes, artists: dict[str, Any]) -> None:
    """Adds a legend with literal names: matplotlib would hide `_base` and parse `$` as a formula."""
    legend = axes.legend(
        list(artists.values()),
        list(artists),
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(artists), 4),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _whiskers(rate: dict[str, Any]) -> list[list[float]]:
    share, low, high = (100 * rate[key] for key in ("share", "low", "high"))
    return [[max(share - low, 0)], [max(high - share, 0)]]


def _canvas() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
