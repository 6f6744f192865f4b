"""Plots runs side by side, one per column: consult rate by kind, reward by mode, weights, groups, drift.

Panels of a row share their axis, so that runs can be compared. Writes `runs.png`, the self-contained page
`runs.html`, and the plotted values as `runs.json`.
"""

from __future__ import annotations

import base64
import io
import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.reports import COLOURS, MARKERS
from trainer.reports.run_history import History, HistoryError, read_history

_GRID_COLOUR = "#dddddd"
MAX_MARKED_POINTS = 30
"""Longer lines have no markers."""
KIND_NAMES = {
    "harmful": "harmful",
    "benign_sensitive": "harmless, looks risky",
    "benign_plain": "harmless, plain",
    "math": "math",
}


@dataclass(frozen=True)
class Panel:
    """A row of the plot: its title, a description of a good run, and metric names with their labels."""

    title: str
    good: str
    metrics: dict[str, str]
    share: bool = False


PANELS = (
    Panel(
        "consult rate by kind",
        "harmful stays high while harmless falls",
        {f"ifpo/consult_rate/{kind}": name for kind, name in KIND_NAMES.items()},
        share=True,
    ),
    Panel(
        "reward by mode",
        "both rise; where direct is above consulting, consulting less pays",
        {"ifpo/reward/consult": "consulting", "ifpo/reward/direct": "direct"},
    ),
    Panel(
        "weights and groups, shares",
        "weights near 1; few one-mode groups",
        {
            "ifpo/effective_share": "effective share of the weights",
            "ifpo/one_mode_groups": "one-mode groups",
            "ifpo/equal_reward_groups": "groups with equal rewards",
        },
        share=True,
    ),
    Panel(
        "largest weight",
        "far below w_max × group size",
        {"ifpo/largest_weight": "largest weight"},
    ),
    Panel(
        "shift of the decision, nats",
        "harmful at or above zero, harmless below",
        {f"logged/towards_consulting/{kind}": name for kind, name in KIND_NAMES.items()},
    ),
    Panel(
        "drift from the sampling policy",
        "KL grows slowly; little is clipped",
        {
            "logged/kl": "KL to the sampling policy",
            "kl": "KL to the initial policy",
            "clip_ratio/region_mean": "clipped share",
        },
    ),
    Panel(
        "safety multiplier",
        "rises only while harmful prompts are below harmful_floor",
        {"ifpo/multiplier": "weight of harmful prompts"},
    ),
    Panel("entropy", "falls slowly, never to zero", {"entropy": "entropy, nats per token"}),
    Panel(
        "length",
        "no steady growth",
        {"completions/mean_length": "tokens per completion"},
    ),
)


@dataclass(frozen=True)
class RunComparison:
    """The files written, the runs plotted, and notes about missing metrics."""

    written: list[Path]
    runs: list[History]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "written": [str(path) for path in self.written],
            "runs": [asdict(run) for run in self.runs],
            "notes": self.notes,
        }


def plot_runs(folders: list[Path], out: Path) -> RunComparison:
    """Plots the runs in `folders` to files in the folder `out`.

    Raises:
        HistoryError: a folder contains no run, or no run recorded any of the plotted metrics.
    """
    runs = [read_history(folder) for folder in folders]
    panels = [panel for panel in PANELS if any(run.series(name)[0] for run in runs for name in panel.metrics)]
    if not panels:
        raise HistoryError(f"{', '.join(map(str, folders))} recorded none of the plotted metrics")
    notes = [
        f"{run.name} recorded nothing of: {', '.join(missing)}"
        for run in runs
        if (missing := [p.title for p in panels if not any(run.series(name)[0] for name in p.metrics)])
    ]
    picture = _plot(runs, panels)
    out.mkdir(parents=True, exist_ok=True)
    comparison = RunComparison([out / "runs.png", out / "runs.html", out / "runs.json"], runs, notes)
    (out / "runs.png").write_bytes(picture)
    (out / "runs.html").write_text(_page(runs, panels, picture, notes), encoding="utf-8")
    (out / "runs.json").write_text(json.dumps(comparison.as_json(), indent=1) + "\n", encoding="utf-8")
    return comparison


def _plot(runs: list[History], panels: list[Panel]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(0.8 + 4.2 * len(runs), 0.5 + 2.5 * len(panels)), dpi=130, layout="constrained", facecolor="w"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), len(runs), squeeze=False, sharey="row", sharex="col")
    for row, panel in enumerate(panels):
        for column, run in enumerate(runs):
            axes = grid[row][column]
            _plot_panel(axes, run, panel)
            if row == 0:
                axes.set_title(run.title, fontsize=11, pad=10)
            if column == 0:
                axes.set_ylabel(panel.title)
            if row == len(panels) - 1:
                axes.set_xlabel(run.axis)
        handles = {label: line for axes in grid[row] for line, label in _legend_entries(axes)}
        grid[row][-1].legend(
            handles.values(), handles.keys(), frameon=False, fontsize=8, loc="center left",
            bbox_to_anchor=(1.01, 0.5), title=textwrap.fill(f"good: {panel.good}", 32), title_fontsize=8,
            alignment="left",
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _legend_entries(axes: Any) -> zip[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _plot_panel(axes: Any, run: History, panel: Panel) -> None:
    for number, (metric, label) in enumerate(panel.metrics.items()):
        positions, values = run.series(metric)
        if not positions:
            continue
        if (
            len(positions) == 1
        ):  # a level, such as that of the groups before training; a lone dot is overlooked
            axes.axhline(values[0], color=COLOURS[number], lw=1.2, ls=(0, (4, 3)), label=f"{label} (once)")
            continue
        few = len(positions) <= MAX_MARKED_POINTS
        axes.plot(
            positions,
            values,
            color=COLOURS[number],
            marker=MARKERS[number] if few else None,
            markersize=4,
            lw=1.6,
            label=label,
        )
    if not axes.lines:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#888888")
    if panel.share:
        axes.set_ylim(-0.03, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=_GRID_COLOUR, zorder=0)


def _page(runs: list[History], panels: list[Panel], picture: bytes, notes: list[str]) -> str:
    from jinja2 import Environment, PackageLoader, select_autoescape

    rows = [
        {
            "panel": panel.title,
            "good": panel.good,
            "metric": label,
            "values": [_first_and_last(run, metric) for run in runs],
        }
        for panel in panels
        for metric, label in panel.metrics.items()
        if any(run.series(metric)[0] for run in runs)
    ]
    environment = Environment(
        loader=PackageLoader("trainer.reports", ""), autoescape=select_autoescape(default=True)
    )
    page: str = environment.get_template("runs.html.jinja").render(
        runs=runs, rows=rows, notes=notes, picture=base64.b64encode(picture).decode()
    )
    return page


def _first_and_last(run: History, metric: str) -> str:
    _, values = run.series(metric)
    if not values:
        return "–"
    return f"{values[0]:.3f}" if len(values) == 1 else f"{values[0]:.3f} → {values[-1]:.3f}"
