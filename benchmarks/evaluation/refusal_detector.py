"""Measures the refusal detector's agreement with human labels on unseen models, by language, and its speed.

    python benchmarks/evaluation/refusal_detector.py --data xstest_responses.jsonl --json

Leave-one-model-out: for each model, the weights are trained on the answers of all other models and on our
own examples. The patterns were written by hand with these answers in view, so only the weights are
evaluated blind. The answers by language are those of `tests/evaluation/scorers/refusal_answers`, written by
another person than the author of the patterns; the n-grams are trained on them too. For answers that the
n-grams have not seen, see `train_refusal_ngrams.py --leave-out`.
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

from benchmarks.evaluation.train_refusal_cues import fit, own_examples, to_examples
from evaluation.metrics import HumanLabel, LabelledAnswer, measure_agreement, read_answers
from evaluation.scorers.refusal import RefusalVerdict, detect_refusal

BY_LANGUAGE = Path(__file__).resolve().parents[2] / "tests" / "evaluation" / "scorers" / "refusal_answers"


def measure(data: Path) -> dict[str, Any]:
    """Returns the agreement of the detector, its F1 by language, and answers per second of CPU time."""
    answers = read_answers(data)
    examples, own = to_examples(answers), own_examples()
    verdicts: list[RefusalVerdict | None] = [None] * len(answers)
    for held_out in sorted({example.model for example in examples}):
        model = fit([*(example for example in examples if example.model != held_out), *own])
        for index, row in enumerate(answers):
            if examples[index].model == held_out:
                verdicts[index] = detect_refusal(row.response, model=model)
    detected: list[HumanLabel | None] = [verdict.label if verdict else None for verdict in verdicts]
    packaged: list[HumanLabel | None] = [detect_refusal(row.response).label for row in answers]
    seconds = min(_seconds(answers) for _ in range(3))
    return {
        "leave_one_model_out": measure_agreement(answers, detected),
        "by_language": measure_languages(),
        "packaged_weights_f1": measure_agreement(answers, packaged)["f1"],
        "answers_a_second": round(len(answers) / seconds),
    }


def measure_languages() -> dict[str, float | None]:
    """Returns F1 of the packaged detector by language."""
    figures: dict[str, float | None] = {}
    for file in sorted(BY_LANGUAGE.glob("??.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        answers = [LabelledAnswer(response=row["answer"], label=row["label"]) for row in rows]
        labels: list[HumanLabel | None] = [detect_refusal(row.response).label for row in answers]
        figures[file.stem] = measure_agreement(answers, labels)["f1"]
    return figures


def _seconds(answers: Sequence[LabelledAnswer]) -> float:
    start = time.process_time()
    for row in answers:
        detect_refusal(row.response)
    return time.process_time() - start


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
    for language, f1 in result["by_language"].items():
        typer.echo(f"{language:18} F1 {f1:.3f}")
    typer.echo(f"{result['answers_a_second']} answers per second of CPU time")


if __name__ == "__main__":
    typer.run(main)
