"""Results of the whole-episode experiment: one row per run, means with intervals over logs, and a plot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tools.seed_means import format_interval, mean_interval

Row = dict[str, Any]
METRICS = ("consult_probability", "consult_rate", "reward", "safe")
"""`consult_probability` is the exact probability that the reply begins with a consultation, at temperature 1.
`consult_rate` counts episodes. `safe` is the share of harmful prompts that were handled safely."""


def collect(runs: Path, rounds: int) -> list[Row]:
    """Returns a row for every run that was measured after `rounds` rounds, and for every arm of the start.

    A start that was trained again on another machine is another model: its row has the first seed that uses
    it.
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
                probabilities = [row["consult"] for row in exact if row["kind"] == kind]
                values["consult_probability"] = round(sum(probabilities) / len(probabilities), 6)
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
    """Returns a digest of a run's first log. Runs with the same digest trained on the same episodes."""
    file = run / "loop" / "rounds" / "001" / "episodes.jsonl"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else None


def by_method(rows: Sequence[Row]) -> dict[str, dict[int, dict[str, float]]]:
    """Returns the metrics by method and seed, named `KIND METRIC`.

    Adds means over `harmless` kinds, the reward over `all` kinds, and the `gap` between consulting on harmful
    and on harmless prompts.
    """
    methods: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        name = f"start, {row['arm']}" if row["method"] == "start" else row["method"]
        values = {
            f"{kind} {metric}": measured[metric]
            for kind, measured in row["kinds"].items()
            for metric in METRICS
            if measured.get(metric) is not None
        }
        for name_of_mean, kinds in (
            ("harmless", [k for k in row["kinds"] if k != "harmful"]),
            ("all", row["kinds"]),
        ):
            for metric in METRICS[:3]:
                parts = [values[f"{k} {metric}"] for k in kinds if f"{k} {metric}" in values]
                if parts and (name_of_mean == "harmless" or metric == "reward"):
                    values[f"{name_of_mean} {metric}"] = sum(parts) / len(parts)
        for metric in METRICS[:2]:
            if f"harmful {metric}" in values and f"harmless {metric}" in values:
                values[f"gap {metric}"] = values[f"harmful {metric}"] - values[f"harmless {metric}"]
        methods.setdefault(name, {})[row["seed"]] = values
    return methods


def summarize(rows: Sequence[Row], rival: str = "grpo") -> dict[str, dict[str, dict[str, Any]]]:
    """Returns means with intervals over logs, and the paired differences from the rival.

    Seeds that trained on the same log count as one: logs differ as much as methods do, so an interval over
    seeds that share a log would be too narrow. A difference counts once per pair of logs.
    """
    methods = by_method(rows)
    logs = {(row["method"], row["seed"]): row.get("log") or f"of seed {row['seed']}" for row in rows}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name, seeds in methods.items():
        for column in sorted({column for values in seeds.values() for column in values}):
            values = {seed: each[column] for seed, each in seeds.items() if column in each}
            values_by_log = [(logs.get((name, seed), seed), value) for seed, value in values.items()]
            cell: dict[str, Any] = {"seeds": len(values)} | _mean_over_logs(values_by_log, "mean", "logs")
            others = methods.get(rival, {}) if not name.startswith("start") else {}
            pairs = [
                ((logs[name, seed], logs[rival, seed]), value - others[seed][column])
                for seed, value in values.items()
                if column in others.get(seed, {})
            ]
            if pairs and name != rival:
                cell |= _mean_over_logs(pairs, "above_rival", "pairs_of_logs")
            results.setdefault(name, {})[column] = cell
    return results


def _mean_over_logs(values: Sequence[tuple[Any, float]], mean_key: str, count_key: str) -> dict[str, Any]:
    """Returns the mean with its interval, where the values of a log count as one, and the number of logs."""
    by_log: dict[Any, list[float]] = {}
    for log, value in values:
        by_log.setdefault(log, []).append(value)
    return {
        mean_key: mean_interval([sum(each) / len(each) for each in by_log.values()]),
        count_key: len(by_log),
    }


def format_tables(results: dict[str, dict[str, dict[str, Any]]], rival: str = "grpo") -> str:
    """Returns two Markdown tables: the metrics, and the differences from the rival."""
    columns = (
        *(f"{kind} consult_probability" for kind in ("harmful", "benign_sensitive", "benign_plain", "gap")),
        *("harmful safe", "benign_sensitive reward", "benign_plain reward", "all reward"),
    )
    tables = []
    for title, key, count_key in (
        ("method", "mean", "logs"),
        (f"minus {rival}, by seed", "above_rival", "pairs_of_logs"),
    ):
        lines = ["| " + " | ".join([title, f"seeds, {count_key.replace('_', ' ')}", *columns]) + " |"]
        lines.append("| --- |" + " ---: |" * (len(columns) + 1))
        for name, measured in results.items():
            cells = [
                format_interval(measured[column][key]) if key in measured.get(column, {}) else ""
                for column in columns
            ]
            if any(cells):
                seeds, logs = (
                    max(each.get(count, 0) for each in measured.values()) for count in ("seeds", count_key)
                )
                lines.append("| " + " | ".join([name, f"{seeds}, {logs}", *cells]) + " |")
        if len(lines) > 2:
            tables.append("\n".join(lines))
    return "\n\n".join(tables)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Plots consulting on harmful against harmless prompts, and safety against harmless reward; a dot per
    seed."""
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
