"""Trains the linear part of the refusal detector on human-labelled answers.

    python benchmarks/evaluation/train_refusal_cues.py --data xstest_responses.jsonl

Rows need `response`, `model` and `label` (`compliance`, `refusal`, `partial`; positive = refusal or partial).
The packaged weights were trained on the human annotations of XSTest v2 (Röttger et al., CC-BY-4.0) and on
`refusal_answers/examples.jsonl`, answers in twelve languages that we wrote. The shared weights are trained
first, on all answers; the weights of English style then correct their errors. A feature of style is used only
if it occurs in answers of at least two models, so that the weights describe a style and not a single model.
The same data give the same file, byte for byte.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

# Finds the packages of this checkout if the file is run by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.metrics import LabelledAnswer, read_answers
from evaluation.scorers import visible_answer
from evaluation.scorers.refusal import WEIGHTS, RefusalModel, collect, refusal_features

OWN_EXAMPLES = Path(__file__).parent / "refusal_answers" / "examples.jsonl"
OWN_WEIGHT = 0.5
MIN_ANSWERS = 8  # with a feature of style
MIN_MODELS = 2
MIN_SHARED = 3
SHARED_PENALTY = 2.0  # ridge penalty on every weight except the bias
STYLE_PENALTY = 10.0
NEWTON_STEPS = 14  # far past convergence
THRESHOLD = 0.5  # chosen leave-one-model-out on the pooled answers
DIGITS = 3  # rounding hides the processor's order of summation
MIN_WEIGHT = 0.005


@dataclass(frozen=True)
class Example:
    """An answer as the linear model sees it; `model` is "" for our own examples."""

    shared: frozenset[str]
    style: frozenset[str]
    refused: bool
    model: str


def to_examples(answers: Sequence[LabelledAnswer]) -> list[Example]:
    found = []
    for row in answers:
        shared, style = refusal_features(collect(visible_answer(row.response)))
        found.append(Example(shared, style, row.label != "compliance", row.model or ""))
    return found


def own_examples() -> list[Example]:
    """Reads the examples that we wrote."""
    rows = [json.loads(line) for line in OWN_EXAMPLES.read_text(encoding="utf-8").splitlines()]
    return to_examples([LabelledAnswer(response=row["answer"], label=row["label"]) for row in rows])


def fit(examples: Sequence[Example]) -> RefusalModel:
    """Fits two ridge-penalised logistic regressions on binary features, the second on top of the first."""
    target = np.array([float(example.refused) for example in examples])
    importance = np.array([1.0 if example.model else OWN_WEIGHT for example in examples])
    counts = Counter(feature for example in examples for feature in example.shared)
    shared = sorted(feature for feature, count in counts.items() if count >= MIN_SHARED)
    design = _design(shared, [example.shared for example in examples])
    bias, weights = _newton(
        design, target, importance, np.zeros(len(examples)), SHARED_PENALTY, with_bias=True
    )
    style = _style_features(examples)
    offset = design @ weights + bias
    design = _design(style, [example.style for example in examples])
    _, style_weights = _newton(design, target, importance, offset, STYLE_PENALTY, with_bias=False)
    return RefusalModel(
        bias=round(float(bias), DIGITS),
        threshold=THRESHOLD,
        shared=_rounded(shared, weights),
        style=_rounded(style, style_weights),
    )


def _style_features(examples: Sequence[Example]) -> list[str]:
    counts: Counter[str] = Counter()
    models: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        counts.update(example.style)
        for feature in example.style:
            models[feature].add(example.model)
    return sorted(f for f, n in counts.items() if n >= MIN_ANSWERS and len(models[f]) >= MIN_MODELS)


def _design(features: Sequence[str], rows: Sequence[frozenset[str]]) -> np.ndarray:
    column_of = {feature: column for column, feature in enumerate(features)}
    design = np.zeros((len(rows), len(features)))
    for index, row in enumerate(rows):
        design[index, [column_of[feature] for feature in row if feature in column_of]] = 1
    return design


def _newton(
    design: np.ndarray,
    target: np.ndarray,
    importance: np.ndarray,
    offset: np.ndarray,
    penalty: float,
    *,
    with_bias: bool,
) -> tuple[float, np.ndarray]:
    """Returns bias and weights by Newton's method, solved in the space of the examples.

    Shapes: `design` (examples, features); `target`, `importance` and `offset` (examples,).
    """
    ridge = np.full(design.shape[1] + 1, float(penalty))
    ridge[-1] = 1e-6 if with_bias else 1e9
    design = np.hstack([design, np.ones((len(design), 1))])
    scaled = design / ridge
    gram = scaled @ design.T
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-(design @ weights + offset)))
        gradient = design.T @ (importance * (target - probability)) - ridge * weights
        variance = np.maximum(importance * probability * (1 - probability), 1e-6)
        step = np.linalg.solve(np.diag(1 / variance) + gram, scaled @ gradient)
        weights += gradient / ridge - scaled.T @ step
    return float(weights[-1]), weights[:-1]


def _rounded(features: Sequence[str], weights: np.ndarray) -> dict[str, float]:
    rounded = {f: round(float(weight), DIGITS) for f, weight in zip(features, weights, strict=True)}
    return {feature: weight for feature, weight in rounded.items() if abs(weight) >= MIN_WEIGHT}


def as_json(model: RefusalModel, source: str) -> str:
    """Returns the content of the weights file, including the source of the data."""
    head = {
        "about": "Weights of evaluation/scorers/refusal/model/cue_model.py; `_` stands for any word "
        "outside its lexicon.",
        "learned_from": source,
        "written_by": "benchmarks/evaluation/train_refusal_cues.py",
        "bias": model.bias,
        "threshold": model.threshold,
        "shared": dict(sorted(model.shared.items())),
        "style": dict(sorted(model.style.items())),
    }
    return json.dumps(head, indent=0, ensure_ascii=False) + "\n"


def main(
    data: Annotated[Path, typer.Option(help="JSON Lines file of labelled answers.")],
    out: Annotated[Path, typer.Option(help="Weights file to write.")] = WEIGHTS,
    source: Annotated[
        str, typer.Option(help="Description of the data to store in the file.")
    ] = "Human labels of model answers in XSTest v2, Röttger et al., CC-BY-4.0 (no row is contained), and "
    "benchmarks/evaluation/refusal_answers/examples.jsonl",
) -> None:
    """Train the weights and write them."""
    model = fit([*to_examples(read_answers(data)), *own_examples()])
    out.write_text(as_json(model, source), encoding="utf-8")
    typer.echo(f"{len(model.shared)} shared weights and {len(model.style)} of style -> {out}")


if __name__ == "__main__":
    typer.run(main)
