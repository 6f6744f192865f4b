"""Runs side by side, a column each: consult rate by kind, reward by mode, weights, groups, drift.

The rows share their axis, so that columns can be compared. Out come `runs.png`, one page `runs.html` that
opens without a network, and `runs.json` with the figures drawn.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.reports import COLOURS, MARKERS
from trainer.reports.run_history import History, HistoryError, read_history

_INK, _GRID = "#333333", "#dddddd"
KIND_NAMES = {
    "harmful": "harmful",
    "benign_sensitive": "harmless, looks risky",
    "benign_plain": "harmless, plain",
    "math": "math",
}


@dataclass(frozen=True)
class Panel:
    """One row of the picture: a title, what good looks like, and metric names with their legend."""

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
        "both rise; where direct lies above consulting, consulting less pays",
        {"ifpo/reward/consult": "consulting", "ifpo/reward/direct": "direct"},
    ),
    Panel(
        "weights and groups, shares",
        "weights near 1; few groups of one mode",
        {
            "ifpo/effective_share": "effective share of the weights",
            "ifpo/one_mode_groups": "groups of one mode",
            "ifpo/equal_reward_groups": "groups of equal rewards",
        },
        share=True,
    ),
    Panel(
        "largest weight",
        "far below w_max × groups' size",
        {"ifpo/largest_weight": "largest weight"},
    ),
    Panel(
        "movement of the decision, nats",
        "harmful at or above zero, harmless below",
        {f"logged/towards_consulting/{kind}": name for kind, name in KIND_NAMES.items()},
    ),
    Panel(
        "drift from the policy that sampled",
        "KL grows slowly; little is clipped",
        {
            "logged/kl": "KL to the sampling policy",
            "kl": "KL to the start",
            "clip_ratio/region_mean": "share clipped",
        },
    ),
    Panel("entropy", "falls slowly, never to zero", {"entropy": "entropy, nats a token"}),
    Panel(
        "length",
        "no steady growth",
        {"completions/mean_length": "tokens a completion"},
    ),
)


@dataclass(frozen=True)
class Drawn:
    """What was written, what it shows, and what could not be shown."""

    written: list[Path]
    runs: list[History]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "written": [str(path) for path in self.written],
            "runs": [asdict(run) for run in self.runs],
            "notes": self.notes,
        }


def plot_runs(folders: list[Path], out: Path) -> Drawn:
    """Draw the runs in `folders` into the folder `out`.

    Raises:
        HistoryError: a folder holds no run, or nothing in any of them can be drawn.
    """
    runs = [read_history(folder) for folder in folders]
    panels = [panel for panel in PANELS if any(run.series(name)[0] for run in runs for name in panel.metrics)]
    if not panels:
        raise HistoryError(f"{', '.join(map(str, folders))} recorded none of the figures that are drawn")
    notes = [
        f"{run.name} recorded nothing of: {', '.join(missing)}"
        for run in runs
        if (missing := [p.title for p in panels if not any(run.series(name)[0] for name in p.metrics)])
    ]
    picture = _picture(runs, panels)
    out.mkdir(parents=True, exist_ok=True)
    drawn = Drawn([out / "runs.png", out / "runs.html", out / "runs.json"], runs, notes)
    (out / "runs.png").write_bytes(picture)
    (out / "runs.html").write_text(_page(runs, panels, picture, notes), encoding="utf-8")
    (out / "runs.json").write_text(json.dumps(drawn.as_json(), indent=1) + "\n", encoding="utf-8")
    return drawn


def _picture(runs: list[History], panels: list[Panel]) -> bytes:
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
            _draw(axes, run, panel)
            if row == 0:
                axes.set_title(run.title, fontsize=11, pad=10)
            if column == 0:
                axes.set_ylabel(panel.title)
            if row == len(panels) - 1:
                axes.set_xlabel(run.axis)
        handles = {label: line for axes in grid[row] for line, label in _legend(axes)}
        grid[row][-1].legend(
            handles.values(), handles.keys(), frameon=False, fontsize=8, loc="center left",
            bbox_to_anchor=(1.01, 0.5),
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _legend(axes: Any) -> zip[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _draw(axes: Any, run: History, panel: Panel) -> None:
    for number, (metric, label) in enumerate(panel.metrics.items()):
        places, values = run.series(metric)
        if not places:
            continue
        few = len(places) <= 30
        axes.plot(
            places,
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
    axes.grid(color=_GRID, zorder=0)


def _page(runs: list[History], panels: list[Panel], picture: bytes, notes: list[str]) -> str:
    from jinja2 import Environment, PackageLoader, select_autoescape

    rows = [
        {
            "panel": panel.title,
            "good": panel.good,
            "metric": label,
            "values": [_ends(run, metric) for run in runs],
        }
        for panel in panels
        for metric, label in panel.metrics.items()
        if any(run.series(metric)[0] for run in runs)
    ]
    environment = Environment(
        loader=PackageLoader("trainer", "pages"), autoescape=select_autoescape(default=True)
    )
    page: str = environment.get_template("runs.html.jinja").render(
        runs=runs, rows=rows, notes=notes, picture=base64.b64encode(picture).decode()
    )
    return page


def _ends(run: History, metric: str) -> str:
    _, values = run.series(metric)
    if not values:
        return "–"
    return f"{values[0]:.3f}" if len(values) == 1 else f"{values[0]:.3f} → {values[-1]:.3f}"
