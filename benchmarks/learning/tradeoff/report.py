"""What the whole-episode experiment found: one line a run, means with intervals over logs, and a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tools.seed_means import format_interval, mean_interval

Row = dict[str, Any]
METRICS = ("consult_probability", "consult_rate", "reward", "safe")
"""`consult_probability` is the exact one of consulting at once, at temperature 1; `consult_rate` counts
episodes; `safe` is the share of harmful prompts that were handled well."""


def collect(runs: Path, rounds: int) -> list[Row]:
    """A row for every run that was measured after so many rounds, and for every arm of the start.

    A start made anew on another machine is another model: its seed is the first of those that begin from it.
    """
    from trainer.orchestration import measure

    rows = []
    seeds = sorted(int(each.name[-2:]) for each in runs.glob("*-[0-9][0-9]")) or [0]
    for done in sorted([*runs.glob("start/*.done"), *runs.glob(f"*/after-{rounds}/*.done")]):
        folder, start = done.parent, done.parent.name == "start"
        method, _, seed = folder.parent.name.rpartition("-") if not start else ("start", "", seeds[0])
        kinds: dict[str, dict[str, Any]] = measure(
            done.with_suffix(".jsonl"), done.with_name(f"{done.stem}-rewards.jsonl")
        )
        if done.stem == "adaptive":
            exact = json.loads((folder / "consulting.json").read_text(encoding="utf-8"))
            for kind, values in kinds.items():
                here = [row["consult"] for row in exact if row["kind"] == kind]
                values["consult_probability"] = round(sum(here) / len(here), 6)
        rows.append(
            {
                "method": method,
                "seed": int(seed),
                "rounds": 0 if start else rounds,
                "arm": done.stem,
                "log": None if start else _first_log(folder.parent),
                "kinds": kinds,
            }
        )
    return rows


def _first_log(run: Path) -> str | None:
    """What a run began to learn from: runs with one name here learnt from the same episodes."""
    file = run / "loop" / "rounds" / "001" / "episodes.jsonl"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else None


def by_method(rows: Sequence[Row]) -> dict[str, dict[int, dict[str, float]]]:
    """By method and seed, `KIND FIGURE` of each kind; also of `harmless`, for the reward of `all`, and the
    `gap` between consulting on harmful and on harmless prompts."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        name = f"start, {row['arm']}" if row["method"] == "start" else row["method"]
        values = {
            f"{kind} {figure}": measured[figure]
            for kind, measured in row["kinds"].items()
            for figure in METRICS
            if measured.get(figure) is not None
        }
        for whole, kinds in (
            ("harmless", [k for k in row["kinds"] if k != "harmful"]),
            ("all", row["kinds"]),
        ):
            for figure in METRICS[:3]:
                parts = [values[f"{k} {figure}"] for k in kinds if f"{k} {figure}" in values]
                if parts and (whole == "harmless" or figure == "reward"):
                    values[f"{whole} {figure}"] = sum(parts) / len(parts)
        for figure in METRICS[:2]:
            if f"harmful {figure}" in values and f"harmless {figure}" in values:
                values[f"gap {figure}"] = values[f"harmful {figure}"] - values[f"harmless {figure}"]
        found.setdefault(name, {})[row["seed"]] = values
    return found


def summarize(rows: Sequence[Row], rival: str = "grpo") -> dict[str, dict[str, dict[str, Any]]]:
    """Means with intervals over logs, and how far a method lies above the rival, seed by seed.

    Seeds that learnt from one log are one draw: logs differ by as much as methods do, so that an interval
    over seeds which share a log would be too narrow. A difference counts by its pair of logs.
    """
    methods = by_method(rows)
    logs = {(row["method"], row["seed"]): row.get("log") or f"of seed {row['seed']}" for row in rows}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, seeds in methods.items():
        for column in sorted({column for values in seeds.values() for column in values}):
            values = {seed: each[column] for seed, each in seeds.items() if column in each}
            drawn = [(logs.get((name, seed), seed), value) for seed, value in values.items()]
            cell: dict[str, Any] = {"seeds": len(values)} | _over_logs(drawn, "mean", "logs")
            others = methods.get(rival, {}) if not name.startswith("start") else {}
            pairs = [
                ((logs[name, seed], logs[rival, seed]), value - others[seed][column])
                for seed, value in values.items()
                if column in others.get(seed, {})
            ]
            if pairs and name != rival:
                cell |= _over_logs(pairs, "above_rival", "pairs_of_logs")
            found.setdefault(name, {})[column] = cell
    return found


def _over_logs(drawn: Sequence[tuple[Any, float]], figure: str, counted: str) -> dict[str, Any]:
    """The mean of the values with its interval, where those of one log count as one; and how many logs."""
    by_log: dict[Any, list[float]] = {}
    for log, value in drawn:
        by_log.setdefault(log, []).append(value)
    return {
        figure: mean_interval([sum(each) / len(each) for each in by_log.values()]),
        counted: len(by_log),
    }


def format_tables(found: dict[str, dict[str, dict[str, Any]]], rival: str = "grpo") -> str:
    """Two tables: the figures, and the differences from the rival."""
    columns = (
        *(f"{kind} consult_probability" for kind in ("harmful", "benign_sensitive", "benign_plain", "gap")),
        *("harmful safe", "benign_sensitive reward", "benign_plain reward", "all reward"),
    )
    tables = []
    for title, key, counted in (
        ("method", "mean", "logs"),
        (f"less {rival}, by seed", "above_rival", "pairs_of_logs"),
    ):
        lines = ["| " + " | ".join([title, f"seeds, {counted.replace('_', ' ')}", *columns]) + " |"]
        lines.append("| --- |" + " ---: |" * (len(columns) + 1))
        for name, measured in found.items():
            cells = [
                format_interval(measured[column][key]) if key in measured.get(column, {}) else ""
                for column in columns
            ]
            if any(cells):
                seeds, logs = (
                    max(each.get(of, 0) for each in measured.values()) for of in ("seeds", counted)
                )
                lines.append("| " + " | ".join([name, f"{seeds}, {logs}", *cells]) + " |")
        if len(lines) > 2:
            tables.append("\n".join(lines))
    return "\n\n".join(tables)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Consulting on harmful against harmless prompts, safety against the harmless reward: a dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels_of = (
        (
            "harmless consult_probability",
            "harmful consult_probability",
            "consults on harmless (less is better)",
        ),
        ("harmless reward", "harmful safe", "mean reward on harmless (more is better)"),
    )
    figure, panels = pyplot.subplots(1, 2, figsize=(10.4, 4.6), layout="constrained")
    for panel, (x, y, label) in zip(panels, panels_of, strict=True):
        colours = iter(f"C{number}" for number in range(10))
        for name, seeds in by_method(rows).items():
            points = [(values[x], values[y]) for values in seeds.values() if x in values and y in values]
            if not points:
                continue
            across, up = zip(*points, strict=True)
            start = name.startswith("start")
            marker, colour = (
                ("*" if start else "D"),
                ("black" if name == "start, adaptive" else next(colours)),
            )
            if not start:
                panel.scatter(across, up, s=14, color=colour, alpha=0.6)
            mean = sum(across) / len(across), sum(up) / len(up)
            panel.scatter(*mean, s=160 if start else 70, marker=marker, color=colour, label=name)
        panel.set_xlabel(label)
        panel.set_ylabel(f"{y.replace('_', ' ')} (more is better)")
        panel.legend(fontsize=7)
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=90)
    pyplot.close(figure)
