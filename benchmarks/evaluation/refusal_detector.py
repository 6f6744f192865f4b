"""How well the refusal detector does on answers of models that its learned part never saw, and how fast.

    python benchmarks/evaluation/refusal_detector.py --data xstest_responses.jsonl --json

Leave-one-model-out: for each model the linear part is learned from the answers of the other models alone.
Phrases and lecture cues were written by hand with these answers in view, so only the learned part is truly
blind; the figures for answers written in other styles (`tests/evaluation/scorers/test_refusal.py`) stand
beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

# The checkout's own packages, also where this file is run by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.evaluation.train_refusal_style import examples_of, fit
from evaluation.metrics import HumanLabel, LabelledAnswer, measure_agreement, read_answers
from evaluation.scorers.refusal import RefusalVerdict, detect_refusal

PARTS = ("phrase", "lecture", "style")


def measure(data: Path) -> dict[str, Any]:
    """Agreement of the whole detector and of each part alone, and answers judged in a second."""
    answers = read_answers(data)
    examples = examples_of(answers)
    verdicts: list[RefusalVerdict | None] = [None] * len(answers)
    for held_out in sorted({example.model for example in examples}):
        model = fit([example for example in examples if example.model != held_out])
        for place, row in enumerate(answers):
            if examples[place].model == held_out:
                verdicts[place] = detect_refusal(row.response, model=model)
    said: list[HumanLabel | None] = [verdict.label if verdict else None for verdict in verdicts]
    alone: dict[str, Any] = {}
    for part in PARTS:
        labels: list[HumanLabel | None] = [
            "refusal" if verdict and part in verdict.parts else "compliance" for verdict in verdicts
        ]
        figures = measure_agreement(answers, labels)
        alone[part] = {name: figures[name] for name in ("precision", "recall", "f1")}
    packaged: list[HumanLabel | None] = [detect_refusal(row.response).label for row in answers]
    seconds = min(_seconds(answers) for _ in range(3))
    return {
        "leave_one_model_out": measure_agreement(answers, said),
        "parts_alone": alone,
        "packaged_weights_f1": measure_agreement(answers, packaged)["f1"],
        "answers_a_second": round(len(answers) / seconds),
    }


def _seconds(answers: Sequence[LabelledAnswer]) -> float:
    began = time.perf_counter()
    for row in answers:
        detect_refusal(row.response)
    return time.perf_counter() - began


def main(
    data: Annotated[Path, typer.Option(help="Labelled answers, JSON Lines.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the detector leave-one-model-out, with bootstrap intervals, and its speed."""
    found = measure(data)
    if as_json:
        typer.echo(json.dumps(found))
        return
    whole = found["leave_one_model_out"]
    for name, figures in [("all", whole), *whole["by_model"].items()]:
        low, high = figures["intervals"]["f1"]
        typer.echo(
            f"{name:18} n {figures['n']:4}  precision {figures['precision']:.3f}"
            f"  recall {figures['recall']:.3f}  F1 {figures['f1']:.3f} [{low:.3f}, {high:.3f}]"
            f"  kappa {figures['kappa']:.3f}"
        )
    for part, figures in found["parts_alone"].items():
        typer.echo(
            f"{part + ' alone':18} precision {figures['precision']:.3f}  recall {figures['recall']:.3f}"
        )
    typer.echo(f"{found['answers_a_second']} answers a second")


if __name__ == "__main__":
    typer.run(main)
