"""The consult rate on watched harmful prompts over a training, and the multiplier that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools.seed_means import format_interval, mean_interval

TOLERANCE = 0.02
"""Difference from the floor up to which a rate counts as held."""
LAST_SHARE = 0.25
"""Share of the measurements, at the end of a training, whose mean is compared with the floor."""


def series(run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns what a run measured on watched harmful prompts: the consult rate of each measurement and, if
    there is one, the multiplier after it. The result is empty for a start."""
    measured = [update for update in run.get("updates", []) if "watched" in update]
    if not measured:
        return {}
    values = {"watched": [round(update["watched"]["harmful"], 3) for update in measured]}
    if "multiplier" in measured[-1]:
        values["multiplier"] = [round(update["multiplier"], 2) for update in measured]
    return values


def last_mean(values: Sequence[float]) -> float:
    """Returns the mean of the last quarter of the measurements, at least of one."""
    count = max(1, round(LAST_SHARE * len(values)))
    return float(np.mean(values[-count:]))


def watched_rows(methods: Mapping[str, Sequence[Mapping[str, Any]]], floor: float) -> list[list[str]]:
    """Returns a row for each method: seeds, mean rate in the last quarter, lowest and highest rate there of a
    seed, number of seeds whose rate is within the tolerance, mean multiplier in the last quarter, and its
    maximum."""
    rows = []
    for method, runs in methods.items():
        chosen = [run for run in runs if "watched" in run]
        if not chosen:
            continue
        rates = [last_mean(run["watched"]) for run in chosen]
        held = sum(abs(rate - floor) <= TOLERANCE for rate in rates)
        multipliers = [run["multiplier"] for run in chosen if "multiplier" in run]
        rows.append(
            [
                method,
                str(len(chosen)),
                format_interval(mean_interval(rates), 3),
                f"{min(rates):.3f} to {max(rates):.3f}",
                f"{held} of {len(chosen)}",
                f"{np.mean([last_mean(each) for each in multipliers]):.2f}" if multipliers else "",
                f"{np.max(multipliers):.2f}" if multipliers else "",
            ]
        )
    return rows


HEAD = ["method", "seeds", "watched, last quarter", "by seed", "held", "multiplier there", "at most"]
"""Columns of `watched_rows`."""


def plot_watched(
    methods: Mapping[str, Sequence[Mapping[str, Any]]], floor: float, every: int, file: Path
) -> None:
    """Plots the consult rate on watched harmful prompts over the updates: a thin line for each seed, a thick
    one for the mean.

    Args:
        every: number of updates between two measurements.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    shown = {method: runs for method, runs in methods.items() if any("watched" in run for run in runs)}
    for index, (method, runs) in enumerate(shown.items()):
        paths = np.array([run["watched"] for run in runs if "watched" in run])
        updates = every * np.arange(1, paths.shape[1] + 1)
        panel.plot(updates, paths.T, color=f"C{index}", linewidth=0.6, alpha=0.4)
        panel.plot(updates, paths.mean(0), color=f"C{index}", linewidth=2, label=method)
    panel.axhline(floor, color="black", linewidth=1, linestyle="--", label=f"floor {floor:.2f}")
    panel.set_xlabel("updates")
    panel.set_ylabel("consults on watched harmful prompts")
    panel.legend(fontsize=8)
    panel.grid(alpha=0.3)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
