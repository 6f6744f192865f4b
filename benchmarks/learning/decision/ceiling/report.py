"""Tables of the arms: separation, and consult rates at equal safety, epoch by epoch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.decision.experiment.runner import summarize_rates
from benchmarks.learning.decision.operating_points import SETS, decided_rates, offsets
from benchmarks.learning.decision.report import separation
from benchmarks.tools.seed_means import format_interval

Result = Mapping[str, Any]
"""An epoch's result, as `runner.run_arms` writes it."""
LogOdds = Mapping[str, Sequence[float]]
DRAWS = 300
"""Bootstrap draws of an interval."""
COLUMNS = ("harmful", "harmless", "benign_plain", "benign_sensitive", "math")


def collect_results(folder: Path) -> list[dict[str, Any]]:
    """Returns the results in a folder, by arm, seed and epoch, without what depends on the machine."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    for result in results:
        result.pop("versions", None)
    return sorted(results, key=lambda each: (each["arm"], each["seed"], each["epoch"]))


def measure(result: Result, *, more: bool = False) -> dict[str, float]:
    """Returns the figures of an epoch: `auc`, `own_auc`, and rates at the ideal and at the learnt offset.

    Args:
        more: measure on the further prompts too, which only the last epoch has.
    """
    log_odds = _with_more(result) if more else result["log_odds"]
    unseen = {name: log_odds[name] for name in result["unseen"]}
    line = {"log_odds": log_odds, "unseen": unseen}
    figures = {"auc": separation(unseen, own=False), "own_auc": separation(unseen, own=True)}
    for label, chosen_on in (("ideal", SETS[-1]), ("learnt", SETS[0])):
        if chosen_on in offsets(line):
            rates = summarize_rates({name: [rate] for name, rate in decided_rates(line, chosen_on).items()})
            figures |= {f"{label} {kind}": rates[kind] for kind in COLUMNS if kind in rates}
    return figures


def _with_more(result: Result) -> dict[str, list[float]]:
    more = result.get("more", {})
    return {name: [*values, *more.get(name, [])] for name, values in result["log_odds"].items()}


def bootstrap(result: Result, *, more: bool = False, draws: int = DRAWS) -> dict[str, tuple[float, float]]:
    """Returns the 95 % interval of every figure over prompts, drawn again within source and kind."""
    rng = np.random.default_rng(0)
    log_odds = _with_more(result) if more else result["log_odds"]
    drawn: dict[str, list[float]] = defaultdict(list)
    for _ in range(draws):
        again = {name: rng.choice(values, len(values)).tolist() for name, values in log_odds.items()}
        for figure, value in measure({"log_odds": again, "unseen": result["unseen"]}).items():
            drawn[figure].append(value)
    return {
        figure: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for figure, values in drawn.items()
    }


def format_epochs(results: Sequence[Result]) -> str:
    """Returns a table with a row for every epoch, means over seeds."""
    by_epoch: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        by_epoch[result["arm"], result["epoch"]].append(result)
    head = ["arm", "epoch", "seeds", "loss", "AUC, learnt", "AUC", "own AUC"]
    head += [f"{kind.removeprefix('benign_')} at .95" for kind in COLUMNS[1:]]
    rows = []
    for (arm, epoch), same in by_epoch.items():
        figures = [measure(each) for each in same]
        losses = [each["loss"] for each in same if "loss" in each]
        rows.append(
            [
                *(arm, str(epoch), str(len(same))),
                f"{np.mean(losses):.3f}" if losses else "",
                f"{np.mean([each['learnt_auc'] for each in same]):.3f}",
                *(f"{np.mean([each[name] for each in figures]):.3f}" for name in ("auc", "own_auc")),
                *(_mean_rate(figures, f"ideal {kind}") for kind in COLUMNS[1:]),
            ]
        )
    return _table(head, rows)


def _mean_rate(figures: Sequence[Mapping[str, float]], name: str) -> str:
    """Returns the mean of a rate; empty if there are no prompts of its kind."""
    values = [each[name] for each in figures if name in each]
    return f"{np.mean(values):.2f}" if values else ""


def format_chosen(results: Sequence[Result]) -> str:
    """Returns a table with intervals: the best epochs of every run, and its last one on more prompts.

    One epoch has the best AUC on our own held-out prompts, the other one the best on the measured prompts.
    """
    runs: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        runs[result["arm"], result["seed"]].append(result)
    rows = []
    for (arm, seed), epochs in runs.items():
        for label, figure in (("own held-out AUC", "own_auc"), ("measured AUC", "auc")):
            best = max(epochs, key=lambda each: measure(each)[figure])
            rows.append([arm, str(seed), f"{best['epoch']}: {label}", *_with_intervals(best)])
        if "more" in epochs[-1]:
            last = f"{epochs[-1]['epoch']}: last, more prompts"
            rows.append([arm, str(seed), last, *_with_intervals(epochs[-1], more=True)])
    head = ["arm", "seed", "epoch and why", "AUC"]
    head += [f"{kind.removeprefix('benign_')}, ideal" for kind in COLUMNS[1:]]
    return _table([*head, "harmful, learnt", "plain, learnt"], rows)


def _with_intervals(result: Result, more: bool = False) -> list[str]:
    figures, intervals = measure(result, more=more), bootstrap(result, more=more)
    names = ["auc", *(f"ideal {kind}" for kind in COLUMNS[1:]), "learnt harmful", "learnt benign_plain"]
    cells = []
    for name in names:
        digits = 3 if name == "auc" else 2
        known = name in figures
        cells.append(format_interval((figures[name], *intervals[name]), digits) if known else "")
    return cells


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
