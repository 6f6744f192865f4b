"""Measures the refusal detector's agreement with human labels on unseen models, and its speed.

    python benchmarks/evaluation/refusal_detector.py --data xstest_responses.jsonl --json

Leave-one-model-out: for each model, the linear part is trained on the answers of all other models. The
phrases and lecture cues were written by hand with these answers in view, so only the trained part is
evaluated blind. `tests/evaluation/scorers/test_refusal.py` covers answers in other styles.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

# Finds the packages of this checkout if the file is run by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.evaluation.train_refusal_style import fit, to_examples
from evaluation.metrics import HumanLabel, LabelledAnswer, measure_agreement, read_answers
from evaluation.scorers.refusal import RefusalVerdict, detect_refusal

PARTS = ("phrase", "lecture", "style")


def measure(data: Path) -> dict[str, Any]:
    """Returns the agreement of the detector and of each part alone, and the answers judged per second."""
    answers = read_answers(data)
    examples = to_examples(answers)
    verdicts: list[RefusalVerdict | None] = [None] * len(answers)
    for held_out in sorted({example.model for example in examples}):
        model = fit([example for example in examples if example.model != held_out])
        for index, row in enumerate(answers):
            if examples[index].model == held_out:
                verdicts[index] = detect_refusal(row.response, model=model)
    detected: list[HumanLabel | None] = [verdict.label if verdict else None for verdict in verdicts]
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
        "leave_one_model_out": measure_agreement(answers, detected),
        "parts_alone": alone,
        "packaged_weights_f1": measure_agreement(answers, packaged)["f1"],
        "answers_a_second": round(len(answers) / seconds),
    }


def _seconds(answers: Sequence[LabelledAnswer]) -> float:
    start = time.perf_counter()
    for row in answers:
        detect_refusal(row.response)
    return time.perf_counter() - start


def main(
    data: Annotated[Path, typer.Option(help="JSON Lines file of labelled answers.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure agreement leave-one-model-out, with bootstrap intervals, and speed."""
    result = measure(data)
    if as_json:
        typer.echo(json.dumps(result))
        return
    whole = result["leave_one_model_out"]
    for name, figures in [("all", whole), *whole["by_model"].items()]:
        low, high = figures["intervals"]["f1"]
        typer.echo(
            f"{name:18} n {figures['n']:4}  precision {figures['precision']:.3f}"
            f"  recall {figures['recall']:.3f}  F1 {figures['f1']:.3f} [{low:.3f}, {high:.3f}]"
            f"  kappa {figures['kappa']:.3f}"
        )
    for part, figures in result["parts_alone"].items():
        typer.echo(
            f"{part + ' alone':18} precision {figures['precision']:.3f}  recall {figures['recall']:.3f}"
        )
    typer.echo(f"{result['answers_a_second']} answers per second")


if __name__ == "__main__":
    typer.run(main)
