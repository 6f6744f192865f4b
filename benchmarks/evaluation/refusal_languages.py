"""Measures the packaged refusal detector on a set of answers by language and style, with bootstrap intervals.

    python benchmarks/evaluation/refusal_languages.py --data refusal_answers/seventh_set.jsonl

Rows need `model` or `language`, `label` and `response` or `answer`; `style` is optional. An answer without a
label of the detector counts as one that is not a refusal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

# Finds the packages of this checkout if the file is run by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.scorers.refusal import detect_refusal

SAMPLES = 4000
Flags = npt.NDArray[np.bool_]


def measure(data: Path) -> dict[str, dict[str, Any]]:
    """Returns the metrics over all answers, by language and by style."""
    groups: dict[str, list[tuple[bool, bool]]] = {"all": []}
    for line in data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = detect_refusal(row.get("response", row.get("answer"))).label not in ("compliance", None)
        flags = (row["label"] != "compliance", found)
        names = ("all", row.get("language") or row["model"], row.get("style"))
        for name in names:
            if name:
                groups.setdefault(name, []).append(flags)
    return {name: _figures(np.array(rows)) for name, rows in groups.items()}


def _figures(rows: Flags) -> dict[str, Any]:
    refused, found = rows.T
    draws = np.random.default_rng(0).integers(0, len(rows), (SAMPLES, len(rows)))
    low, high = np.quantile(_f1(refused[draws], found[draws]), (0.025, 0.975))
    hits = int((refused & found).sum())
    return {
        "n": len(rows),
        "f1": round(float(_f1(refused, found)), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "precision": round(hits / max(1, int(found.sum())), 3),
        "recall": round(hits / max(1, int(refused.sum())), 3),
    }


def _f1(refused: Flags, found: Flags) -> npt.NDArray[np.float64]:
    hits = (refused & found).sum(axis=-1)
    return np.asarray(2 * hits / np.maximum(1, refused.sum(axis=-1) + found.sum(axis=-1)))


def main(
    data: Annotated[Path, typer.Option(help="JSON Lines file of labelled answers.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure F1, precision and recall of refusals by language and style."""
    figures = measure(data)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, row in figures.items():
        low, high = row["interval"]
        typer.echo(
            f"{name:12} n {row['n']:4}  F1 {row['f1']:.3f} [{low:.3f}, {high:.3f}]"
            f"  precision {row['precision']:.3f}  recall {row['recall']:.3f}"
        )


if __name__ == "__main__":
    typer.run(main)
