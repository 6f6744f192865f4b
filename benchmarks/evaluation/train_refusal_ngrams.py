"""Trains the n-grams of the refusal detector, and how their evidence is added to that of the cues.

    python benchmarks/evaluation/train_refusal_ngrams.py
    python benchmarks/evaluation/train_refusal_ngrams.py --leave-out third_set --json

The first command writes the packaged weights; the same answers give the same files, byte for byte. The second
trains without one set, or without one language, and measures F1 on what was left out.

The n-grams are fitted to every answer. The factors of n-grams and cues are fitted to the sets that other
people than the author of the patterns wrote (`UNSEEN`), each with n-grams that were fitted without the
whole set: answers by the same author resemble each other, so leaving out only a part of a set would overrate
the n-grams. Refusals and helpful answers have the same weight.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

# Finds the packages of this checkout if the file is run by its path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation.scorers import visible_answer
from evaluation.scorers.refusal import NGRAM_RECIPE, NGRAM_WEIGHTS, NgramModel, collect, refusal_features
from evaluation.scorers.refusal.evidence import Evidence
from evaluation.scorers.refusal.model import ngram_buckets, refusal_model, write_ngram_model
from evaluation.scorers.refusal.model.ngram_model import BUCKETS, ngram_text, norm

OWN = Path(__file__).parent / "refusal_answers"
FIRST_SET = Path(__file__).resolve().parents[2] / "tests" / "evaluation" / "scorers" / "refusal_answers"
WITHOUT_NGRAMS = ("en", "it")
SETS = (
    "examples",
    "more_examples",
    "negation_examples",
    "third_set",
    "fourth_set",
    "fifth_set",
    "sixth_set",
    "contrast_examples",
    "further_contrasts",
)  # in `OWN`; a set that is not named is held out
UNSEEN = ("sixth_set", "contrast_examples", "further_contrasts")
"""Sets whose misses the authors of the patterns never saw, so that the cues are not overrated."""
PENALTY = 1 / 256  # of a squared weight; chosen with whole sets left out
MIN_ANSWERS = 2  # with an n-gram
NEWTON_STEPS = 40  # far past convergence
TOLERANCE = 1e-7
DIGITS = 4
UNITS = 127  # of the largest weight

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """An answer as the model sees it."""

    source: str
    language: str
    refused: bool
    evidence: Evidence
    buckets: npt.NDArray[np.uint32]
    cue_evidence: float


@dataclass(frozen=True)
class Fit:
    """Weights by bucket before rounding, each times the square of the rarity."""

    weights: Vector
    rarity: npt.NDArray[np.uint8]
    bias: float

    def evidence(self, answer: Answer) -> float:
        """Returns the log-odds of a refusal."""
        return self.bias + float(self.weights[answer.buckets].sum()) / norm(self.rarity[answer.buckets])


def read_sets() -> list[Answer]:
    """Reads every answer that may be trained on, in the languages that are judged by n-grams."""
    files = [*(OWN / f"{name}.jsonl" for name in SETS), *sorted(FIRST_SET.glob("??.jsonl"))]
    answers = []
    for file in files:
        source = "first_set" if file.parent == FIRST_SET else file.stem
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            language = row.get("language") or row.get("lang") or row["model"]
            if language not in WITHOUT_NGRAMS:
                text = row["response"] if "response" in row else row["answer"]
                answers.append(_to_answer(source, language, row["label"] != "compliance", text))
    return answers


def _to_answer(source: str, language: str, refused: bool, text: str) -> Answer:
    evidence = collect(visible_answer(text))
    buckets = ngram_buckets(ngram_text(evidence.text))
    cues = refusal_model().evidence(*refusal_features(evidence))
    return Answer(source, language, refused, evidence, buckets, cues)


def train(answers: Sequence[Answer]) -> NgramModel:
    """Fits the n-grams, and then the factors of n-grams and cues."""
    whole = _fit_ngrams(answers)
    scale = float(np.abs(whole.weights).max()) / UNITS
    rounded = np.rint(whole.weights / scale).astype(np.int8)
    design, target, importance = [], [], []
    for name in UNSEEN:
        held_out = [answer for answer in answers if answer.source == name]
        if not held_out:
            continue
        rest = _fit_ngrams([answer for answer in answers if answer.source != name], whole)
        share = sum(answer.refused for answer in held_out) / len(held_out)
        for answer in held_out:
            design.append((rest.evidence(answer), answer.cue_evidence, 1.0))
            target.append(float(answer.refused))
            importance.append(0.5 / (share if answer.refused else 1 - share))
    ngram_factor, cue_factor, bias = _fit_factors(np.array(design), np.array(target), np.array(importance))
    return NgramModel(
        rounded,
        whole.rarity,
        scale=float(f"{scale:.6g}"),
        bias=round(whole.bias, DIGITS),
        ngram_factor=round(ngram_factor, DIGITS),
        cue_factor=round(cue_factor, DIGITS),
        combined_bias=round(bias, DIGITS),
    )


def _fit_ngrams(answers: Sequence[Answer], start: Fit | None = None) -> Fit:
    """Fits a ridge-penalised logistic regression by Newton's method with conjugate gradients.

    An answer is a vector of length 1, in which an n-gram has the square of its rarity.
    """
    from scipy import sparse
    from scipy.sparse import linalg

    columns = np.concatenate([answer.buckets for answer in answers])
    counts = np.bincount(columns, minlength=BUCKETS)
    active = np.flatnonzero(counts >= MIN_ANSWERS)
    rarity = np.zeros(BUCKETS, dtype=np.uint8)
    rarity[active] = np.maximum(1, np.rint(np.log2(len(answers) / counts[active])))
    squares = rarity.astype(np.float64) ** 2
    lengths = [norm(rarity[answer.buckets]) for answer in answers]
    ends = np.cumsum([0, *(len(answer.buckets) for answer in answers)])
    values = squares[columns] / np.repeat(lengths, np.diff(ends))
    design = sparse.csr_matrix((values, columns, ends), shape=(len(answers), BUCKETS))[:, active]
    design = sparse.hstack([design, np.ones((len(answers), 1))]).tocsr()
    target = np.array([float(answer.refused) for answer in answers])
    weights = np.zeros(design.shape[1])
    if start:
        weights[:-1], weights[-1] = start.weights[active] / squares[active], start.bias
    transposed = design.T.tocsr()
    ridge = np.full(design.shape[1], PENALTY)
    ridge[-1] = 1e-6  # of the bias
    for _ in range(NEWTON_STEPS):
        probability = _probability(design @ weights)
        gradient = transposed @ (target - probability) - ridge * weights
        largest = float(np.abs(gradient).max())
        if largest < TOLERANCE:
            break
        variance = probability * (1 - probability)

        def times(vector: Vector, variance: Vector = variance) -> Vector:
            return np.asarray(transposed @ (variance * (design @ vector)) + ridge * vector)

        hessian = linalg.LinearOperator((len(weights), len(weights)), matvec=times, dtype=np.float64)
        # A step far from the solution need not be exact.
        step, _ = linalg.cg(hessian, gradient, rtol=min(0.05, largest), maxiter=2000)
        limit = _loss(design, target, ridge, weights) * (1 + 1e-9)
        while _loss(design, target, ridge, weights + step) > limit:
            step = step / 2
        weights = weights + step
    found = np.zeros(BUCKETS)
    found[active] = weights[:-1] * squares[active]
    return Fit(found, rarity, float(weights[-1]))


def _probability(log_odds: Vector) -> Vector:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -50, 50))))


def _loss(design: Any, target: Vector, ridge: Vector, weights: Vector) -> float:
    margin = (2 * target - 1) * (design @ weights)
    return float(np.logaddexp(0, -margin).sum() + ridge @ weights**2 / 2)


def _fit_factors(design: Vector, target: Vector, importance: Vector) -> list[float]:
    factors = np.array([1.0, 0.5, 0.0])
    for _ in range(50):
        probability = _probability(design @ factors)
        hessian = (design * (importance * probability * (1 - probability))[:, None]).T @ design
        factors += np.linalg.solve(hessian, design.T @ (importance * (target - probability)))
    return [float(factor) for factor in factors]


def measure(model: NgramModel, answers: Sequence[Answer]) -> dict[str, Any]:
    """Returns F1, precision and recall of refusals, overall and by language."""
    flags: dict[str, list[tuple[bool, bool]]] = {"all": []}
    for answer in answers:
        found = answer.evidence.is_readable and model.score(answer.evidence.text, answer.cue_evidence) >= 0.5
        flags["all"].append((answer.refused, found))
        flags.setdefault(answer.language, []).append((answer.refused, found))
    return {name: _rates(rows) for name, rows in sorted(flags.items())}


def _rates(rows: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    hits = sum(refused and found for refused, found in rows)
    refusals, positives = sum(refused for refused, _ in rows), sum(found for _, found in rows)
    return {
        "n": len(rows),
        "f1": round(2 * hits / max(1, refusals + positives), 3),
        "precision": round(hits / max(1, positives), 3),
        "recall": round(hits / max(1, refusals), 3),
    }


def _recipe(answers: Sequence[Answer]) -> Mapping[str, Any]:
    sources = {answer.source for answer in answers}
    return {
        "about": "How ngrams.npz was trained, and numbers of ngram_model.py.",
        "learned_from": "Answers that we wrote: benchmarks/evaluation/refusal_answers and "
        "tests/evaluation/scorers/refusal_answers, without English and Italian",
        "written_by": "benchmarks/evaluation/train_refusal_ngrams.py",
        "answers": {name: sum(answer.source == name for answer in answers) for name in sorted(sources)},
        "penalty": PENALTY,
        "min_answers": MIN_ANSWERS,
        "factors_fitted_to": list(UNSEEN),
    }


def main(
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="Set or language to leave out and to measure; nothing is written."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for ngrams.npz and ngrams.json.")] = NGRAM_WEIGHTS.parent,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train the n-grams and write them, or measure them on what is left out."""
    answers = read_sets()
    for name in leave_out or []:
        kept = [answer for answer in answers if name not in (answer.source, answer.language)]
        left = [answer for answer in answers if name in (answer.source, answer.language)]
        if not left:
            raise typer.BadParameter(f"{name!r} is neither a set nor a language of the answers.")
        model = train(kept)
        cues_only = replace(model, ngram_factor=0.0, cue_factor=1.0, combined_bias=0.0)
        figures = {"left_out": name, "combined": measure(model, left), "cues_only": measure(cues_only, left)}
        typer.echo(json.dumps(figures) if as_json else _table(figures))
    if leave_out:
        return
    model = train(answers)
    out.mkdir(parents=True, exist_ok=True)
    write_ngram_model(model, dict(_recipe(answers)), out / NGRAM_WEIGHTS.name, out / NGRAM_RECIPE.name)
    typer.echo(f"{np.count_nonzero(model.weights)} weights of {len(answers)} answers -> {out}")


def _table(figures: Mapping[str, Any]) -> str:
    lines = [f"left out: {figures['left_out']}"]
    for kind in ("combined", "cues_only"):
        by_language = "  ".join(f"{name} {row['f1']:.3f}" for name, row in figures[kind].items())
        lines.append(f"  {kind:10} F1 {by_language}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
