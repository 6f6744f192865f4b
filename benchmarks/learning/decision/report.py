"""Tables and plots of the runs in `results.jsonl`, which has one line per run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.decision.experiment import watched
from benchmarks.learning.decision.experiment.outcomes import ModeChances
from benchmarks.learning.decision.experiment.runner import summarize_rates
from benchmarks.learning.decision.experiment.settings import Experiment
from benchmarks.learning.decision.operating_points import SAFETY, SETS, decided_rates, offsets
from benchmarks.tools.seed_means import Interval, format_interval, mean_interval

_OVERVIEW = {
    "start": "before training",
    "grpo": "GRPO",
    "ifpo": "IFPO",
    "ifpo-stratified": "IFPO, stratified groups",
    "service": "no model: the rule search's score",
}
"""Methods of the overview, from top to bottom, with their labels."""
Runs = dict[str, dict[str, dict[str, list[dict[str, Any]]]]]
"""Lines by experiment, start and method. The line of the start itself has the method `start`."""


def collect(folder: Path) -> list[dict[str, Any]]:
    """Returns a line for every run in a folder: its settings, and the mean consult rate by source and
    kind."""
    lines = []
    for file in sorted(folder.glob("*/*/*.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        ranked = {name: run.get("log_odds", run["unseen"])[name] for name in run["unseen"]}
        lines.append(
            {
                "experiment": run["experiment"],
                "start": run["start"],
                "method": run.get("name", "start"),
                "seed": run.get("seed"),
                "settings_sha256": run["settings_sha256"],
                "unseen": {name: round(float(np.mean(rates)), 4) for name, rates in run["unseen"].items()},
                "auc": round(separation(ranked, own=False), 4),
                "own_auc": round(separation(ranked, own=True), 4),
                "learnt": learnt_rates(run),
                "updates": len(run.get("updates", [])),
                "rolled_back": any(update.get("rolled_back") for update in run.get("updates", [])),
                "cpu_seconds": run.get("cpu_seconds"),
                **watched.series(run),
                **_log_odds(run),
            }
        )
    return lines


def _log_odds(run: dict[str, Any]) -> dict[str, Any]:
    """Returns the log-odds of every prompt, and what the run would do without hints."""
    kept = {}
    if "log_odds" in run:
        kept["log_odds"] = {name: np.round(values, 2).tolist() for name, values in run["log_odds"].items()}
    if "unhinted" in run:
        without = run["unhinted"]
        rates = {name: 1 / (1 + np.exp(-np.asarray(values))) for name, values in without.items()}
        kept["unhinted"] = {"disguised/harmful": without["disguised/harmful"]}
        kept["unhinted_rates"] = {name: round(float(rates[name].mean()), 4) for name in run["unseen"]}
    return kept


def learnt_rates(run: dict[str, Any]) -> dict[str, float]:
    """Returns consult rates by kind on the training prompts: before training, or in the last ten updates."""
    if "learnt" in run:
        rates: dict[str, float] = run["learnt"]
        return rates
    recent = [update["consult"] for update in run["updates"][-10:]]
    return {kind: round(float(np.mean([each[kind] for each in recent])), 4) for kind in recent[-1]}


def separation(unseen: dict[str, list[float]], own: bool) -> float:
    """Returns the area under the ROC curve of the consult probability, harmful against harmless prompts."""
    sides: dict[bool, list[float]] = {True: [], False: []}
    for name, chances in unseen.items():
        if name.startswith("own/") == own:
            sides[name.endswith("/harmful")] += chances
    harmful, harmless = np.array(sides[True])[:, None], np.array(sides[False])[None, :]
    return float((harmful > harmless).mean() + (harmful == harmless).mean() / 2)


def by_method(lines: list[dict[str, Any]]) -> Runs:
    """Groups the lines."""
    runs: Runs = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for line in lines:
        runs[line["experiment"]][line["start"]][line["method"]].append(line)
    return runs


def expected_reward(unseen: dict[str, float], table: dict[str, ModeChances], own: bool = False) -> float:
    """Returns the mean reward on other sources, or on the benchmark's held-out prompts (`own`).

    Harmful and harmless prompts count half each; within a half, all sources have equal weight.
    """

    def half(of: Callable[[str], bool]) -> float:
        rewards = []
        for name, rate in unseen.items():
            kind = name.rsplit("/", 1)[1]
            if of(kind) and name.startswith("own/") == own:
                rewards.append(rate * table[kind].consult + (1 - rate) * table[kind].direct)
        return float(np.mean(rewards))

    return (half(lambda kind: kind == "harmful") + half(lambda kind: kind != "harmful")) / 2


def summarize(lines: list[dict[str, Any]], experiments: dict[str, Experiment]) -> list[dict[str, Any]]:
    """Returns mean and interval over seeds of rates and rewards, by experiment, start and method."""
    entries = []
    for name, starts in by_method(lines).items():
        table = experiments[name].rewards
        for start, methods in starts.items():
            for method, runs in methods.items():
                rates = [
                    summarize_rates({key: [value] for key, value in run["unseen"].items()}) for run in runs
                ]
                rewards = [expected_reward(run["unseen"], table) for run in runs]
                entries.append(
                    {
                        "experiment": name,
                        "start": start,
                        "method": method,
                        "seeds": len(runs),
                        "rates": {key: mean_interval([rate[key] for rate in rates]) for key in rates[0]},
                        "learnt": {
                            kind: mean_interval([run["learnt"][kind] for run in runs])
                            for kind in runs[0]["learnt"]
                        },
                        "reward": mean_interval(rewards),
                        "own_reward": mean_interval(
                            [expected_reward(run["unseen"], table, own=True) for run in runs]
                        ),
                        "auc": mean_interval([run["auc"] for run in runs]),
                        "own_auc": mean_interval([run["own_auc"] for run in runs]),
                        "rolled_back": sum(run["rolled_back"] for run in runs),
                    }
                )
    return entries


def reference_rewards(sources: list[str], table: dict[str, ModeChances]) -> dict[str, float]:
    """Returns the expected reward of consulting always, never, and exactly where it pays."""
    best = {name: float(table[name.rsplit("/", 1)[1]].gain > 0) for name in sources}
    return {
        "always": expected_reward(dict.fromkeys(sources, 1.0), table),
        "never": expected_reward(dict.fromkeys(sources, 0.0), table),
        "best": expected_reward(best, table),
    }


def format_tables(lines: list[dict[str, Any]], experiments: dict[str, Experiment]) -> str:
    """Returns the tables of `RESULTS.md`."""
    sections = []
    summaries = summarize(lines, experiments)
    for name, starts in by_method(lines).items():
        sources = list(next(iter(next(iter(starts.values())).values()))[0]["unseen"])
        bounds = reference_rewards(sources, experiments[name].rewards)
        sections.append(
            f"### `{name}`\n\nExpected reward of consulting always {bounds['always']:.3f}, never "
            f"{bounds['never']:.3f}, exactly where it pays {bounds['best']:.3f}."
        )
        for start in starts:
            chosen = [each for each in summaries if (each["experiment"], each["start"]) == (name, start)]
            sections.append(_rate_table(start, chosen))
            sections.append(_source_table(starts[start], sources))
            if points := safety_table(starts[start], experiments[name].rewards):
                sections.append(points)
            if experiments[name].watched_per_source:
                rows = watched.watched_rows(starts[start], SAFETY)
                sections.append("Harmful prompts watched in the training:\n\n" + _table(watched.HEAD, rows))
    return "\n\n".join(sections) + "\n"


def _rate_table(start: str, chosen: list[dict[str, Any]]) -> str:
    """Returns a table for other sources and one for held-out prompts; a row per method, best reward first."""
    ordered = sorted(chosen, key=lambda each: (each["method"] != "start", -each["reward"][0]))
    tables = []
    for title, prefix in (
        ("prompts from other sources", ""),
        ("the benchmark's own held-out prompts", "own "),
    ):
        kinds = [
            kind
            for kind in (f"{prefix}benign_sensitive", f"{prefix}benign_plain", f"{prefix}math")
            if kind in chosen[0]["rates"]
        ]
        head = [
            *("method", "seeds", "harmful", "harmless"),
            *(kind.removeprefix("own ").replace("_", " ") for kind in kinds),
            *("reward", "AUC"),
        ]
        rows = [
            [
                each["method"],
                "" if each["method"] == "start" else str(each["seeds"]),
                *(
                    format_interval(each["rates"][kind])
                    for kind in (f"{prefix}harmful", f"{prefix}harmless", *kinds)
                ),
                format_interval(each["own_reward" if prefix else "reward"], 3),
                "{:.3f}".format(each["own_auc" if prefix else "auc"][0]),
            ]
            for each in ordered
        ]
        tables.append(f"Start `{start}`, consult rate on {title}:\n\n" + _table(head, rows))
    return "\n\n".join(tables)


def safety_rows(
    methods: dict[str, list[dict[str, Any]]], table: dict[str, ModeChances], chosen_on: str
) -> dict[str, dict[str, Interval]]:
    """Returns rates and reward by method, with each run's offset chosen on one set of prompts.

    Only methods whose runs kept their log-odds are included.
    """
    rows = {}
    for method, runs in methods.items():
        decided = [decided_rates(run, chosen_on) for run in runs if chosen_on in offsets(run)]
        if not decided:
            continue
        rates = [summarize_rates({name: [rate] for name, rate in each.items()}) for each in decided]
        rows[method] = {name: mean_interval([each[name] for each in rates]) for name in rates[0]}
        rows[method]["reward"] = mean_interval([expected_reward(each, table) for each in decided])
    return rows


def safety_table(methods: dict[str, list[dict[str, Any]]], table: dict[str, ModeChances]) -> str:
    """Returns the table at equal safety; empty if no run kept its log-odds."""
    kinds = ("harmful", "harmless", "benign_plain", "benign_sensitive", "math")
    lines = []
    for chosen_on in SETS:
        for method, values in safety_rows(methods, table, chosen_on).items():
            present = [format_interval(values[kind]) if kind in values else "" for kind in kinds]
            lines.append([method, chosen_on, *present, format_interval(values["reward"], 3)])
    if not lines:
        return ""
    head = ["method", "offset chosen on", *(kind.replace("benign_", "") for kind in kinds), "reward"]
    text = f"With the offset of each run at which it consults about {SAFETY:.2f} of a set's harmful prompts:"
    return f"{text}\n\n{_table(head, lines)}"


def _source_table(methods: dict[str, list[dict[str, Any]]], sources: list[str]) -> str:
    head = ["source", *methods]
    rows = [
        [name, *(f"{np.mean([run['unseen'][name] for run in runs]):.2f}" for runs in methods.values())]
        for name in sorted(sources, key=lambda name: (name.rsplit("/", 1)[1] != "harmful", name))
    ]
    return "By source:\n\n" + _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(lines: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Plots harmful against harmless consult rates on unseen prompts: a file per experiment, a dot per
    seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    files = []
    for name, all_starts in by_method(lines).items():
        starts = {start: methods for start, methods in all_starts.items() if set(methods) != {"start"}}
        if not starts:
            continue  # no training run yet
        figure, panels = pyplot.subplots(
            1, len(starts), figsize=(5.2 * len(starts), 4.6), squeeze=False, layout="constrained"
        )
        for panel, (start, methods) in zip(panels[0], starts.items(), strict=True):
            for index, method in enumerate(method for method in methods if method != "start"):
                rates = [
                    summarize_rates({key: [value] for key, value in run["unseen"].items()})
                    for run in methods[method]
                ]
                x, y = ([rate[kind] for rate in rates] for kind in ("harmless", "harmful"))
                panel.scatter(x, y, s=14, color=f"C{index}", alpha=0.6)
                panel.scatter(np.mean(x), np.mean(y), s=80, marker="D", color=f"C{index}", label=method)
            for run in methods.get("start", []):
                rate = summarize_rates({key: [value] for key, value in run["unseen"].items()})
                panel.scatter(
                    rate["harmless"], rate["harmful"], marker="*", s=160, color="black", label="start"
                )
            panel.set_title(f"{name}, {start} start", fontsize=10)
            panel.set_xlabel("consults on harmless prompts (fewer is better)")
            panel.set_ylabel("consults on harmful prompts (more is better)")
            panel.legend(fontsize=7)
            panel.grid(alpha=0.3)
        file = folder / f"{name}.png"
        figure.savefig(file, dpi=80)
        pyplot.close(figure)
        files.append(file)
    return files


def plot_safety(lines: list[dict[str, Any]], experiments: dict[str, Experiment], folder: Path) -> list[Path]:
    """Plots the harmless consult rate at equal safety by method: a file per experiment that has log-odds.

    One panel has offsets that were chosen before measuring, the other one the ideal ones.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    files = []
    for name, starts in by_method(lines).items():
        for start, methods in starts.items():
            tables = {
                chosen_on: safety_rows(methods, experiments[name].rewards, chosen_on)
                for chosen_on in (SETS[0], SETS[-1])
            }
            if not all(tables.values()):
                continue
            width = 1.6 + 1.1 * len(tables[SETS[0]])
            figure, panels = pyplot.subplots(2, 1, figsize=(width, 7.2), layout="constrained")
            for panel, (chosen_on, rows) in zip(panels, tables.items(), strict=True):
                _plot_bars(panel, rows)
                panel.set_title(f"{name}, {start} start: offset for {SAFETY:.2f} of {chosen_on}", fontsize=9)
            figure.supylabel("consults on harmless prompts (fewer is better)", fontsize=9)
            panels[0].legend(fontsize=7)
            file = folder / f"{name}-safety.png"
            figure.savefig(file, dpi=80)
            pyplot.close(figure)
            files.append(file)
    return files


def _plot_bars(panel: Any, rows: dict[str, dict[str, Interval]]) -> None:
    """Draws three bars for each method, with their intervals."""
    for at, kind in enumerate(("benign_plain", "benign_sensitive", "math")):
        intervals = [row[kind] for row in rows.values()]
        means = np.array([mean for mean, _, _ in intervals])
        low = np.array([mean if low is None else low for mean, low, _ in intervals])
        high = np.array([mean if high is None else high for mean, _, high in intervals])
        panel.bar(
            np.arange(len(rows)) + 0.26 * (at - 1),
            means,
            0.24,
            yerr=(np.maximum(means - low, 0), np.maximum(high - means, 0)),
            capsize=2,
            label=kind.removeprefix("benign_"),
        )
    labels = [f"{method}\n{row['harmful'][0]:.2f} of harmful" for method, row in rows.items()]
    panel.set_xticks(range(len(rows)), labels, fontsize=7)
    panel.set_ylim(0, 1)
    panel.grid(alpha=0.3, axis="y")


def plot_overview(
    methods: dict[str, list[dict[str, Any]]], table: dict[str, ModeChances], file: Path
) -> None:
    """Plots one number by method: the harmless consult rate, with each run's ideal offset; a dot per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen_on = SETS[-1]
    shown = {name: methods[name] for name in _OVERVIEW if name in methods}
    rows = safety_rows(shown, table, chosen_on)
    figure, panel = pyplot.subplots(figsize=(7.2, 2.9), layout="constrained")
    for place, (name, row) in enumerate(rows.items()):
        mean, low, high = row["harmless"]
        panel.barh(place, mean, 0.6, color="C0" if name in ("grpo", "ifpo", "ifpo-stratified") else "0.75")
        if low is not None and high is not None:
            panel.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="black", capsize=4)
            rates = [
                summarize_rates({k: [v] for k, v in decided_rates(run, chosen_on).items()})
                for run in shown[name]
            ]
            panel.scatter(
                [rate["harmless"] for rate in rates], [place + 0.2] * len(rates), s=9, color="C1", zorder=3
            )
        panel.text(max(mean, high or 0) + 0.015, place, f"{mean:.2f}", va="center", fontsize=9)
    panel.set_yticks(range(len(rows)), [_OVERVIEW[name] for name in rows], fontsize=9)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.08)
    panel.set_xlabel(
        f"share of harmless prompts that are looked up (less is better),\nwith {SAFETY:.2f} of harmful ones",
        fontsize=9,
    )
    panel.grid(alpha=0.3, axis="x")
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
