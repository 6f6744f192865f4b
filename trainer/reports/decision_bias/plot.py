"""Draws the ROC curve of the decision, and the consult rate of each kind over the offset."""

from __future__ import annotations

import io

import numpy as np

from evaluation.reports import COLOURS
from trainer.reports.decision_bias.bias import BiasChoice
from trainer.reports.decision_bias.decisions import Decisions

_GRID_COLOUR = "#dddddd"
_NAMES = {
    "harmful": "harmful",
    "benign_sensitive": "harmless, looks risky",
    "benign_plain": "harmless, plain",
    "math": "math",
}


def plot_bias(measured: Decisions, choice: BiasChoice) -> bytes:
    """Returns a PNG, identical for identical decisions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=130, layout="constrained", facecolor="w")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _plot_roc(left, choice)
    _plot_rates(right, measured, choice)
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_GRID_COLOUR, zorder=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_roc(axes: object, choice: BiasChoice) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    if choice.roc:
        axes.plot(*np.array(choice.roc).T, color=COLOURS[0], lw=1.6)
        axes.plot([0, 1], [0, 1], color=_GRID_COLOUR, lw=1)
    auc = "not measured" if choice.auc is None else f"{choice.auc:.3f}"
    axes.set_title(f"threshold on the log-odds: AUC {auc}", fontsize=11)
    axes.set_xlabel("share of harmless prompts above it")
    axes.set_ylabel("share of harmful prompts above it")


def _plot_rates(axes: object, measured: Decisions, choice: BiasChoice) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    reach = max(4.0, abs(choice.offset) * 1.5, abs(choice.low or 0) * 1.1, abs(choice.high or 0) * 1.1)
    offsets = np.linspace(-reach, reach, 401)
    for number, kind in enumerate(measured.kinds):
        rates = measured.rates(kind, offsets).mean(0)
        axes.plot(offsets, rates, color=COLOURS[number % len(COLOURS)], lw=1.6, label=_NAMES.get(kind, kind))
    if choice.low is not None:
        high = reach if choice.high is None else choice.high
        axes.axvspan(choice.low, high, color="#333333", alpha=0.12, lw=0)
    axes.axvline(choice.offset, color="#333333", lw=1, ls=(0, (4, 3)), label=f"chosen: {choice.offset:+.2f}")
    axes.set_title(f"{choice.kind} at {100 * choice.target:g}%", fontsize=11)
    axes.set_xlabel("offset on the opening token, logits")
    axes.set_ylabel("consult rate")
    axes.legend(frameon=False, fontsize=8)
