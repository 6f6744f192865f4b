"""Trains the character n-grams of the refusal detector, and how their evidence is added to that of the cues.

    python benchmarks/evaluation/train_refusal_ngrams.py
    python benchmarks/evaluation/train_refusal_ngrams.py --leave-out third_set --json

The first command writes the packaged weights; the same answers give the same files, byte for byte. The second
trains without one set, or without one language, and measures F1 on what was left out.

The n-grams are fitted to every answer. The factors of n-grams and cues are fitted to the sets that other
people than the author of the patterns wrote (`BY_OTHERS`), each with n-grams that were fitted without the
whole set: answers by the same author resemble each other, so parts of a set would make the n-grams look too
sure.
The patterns were extended with these sets in view, so cues look better on them than they are on new answers.
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
)  # in `OWN`; a set that is not named is held out
BY_OTHERS = ("third_set", "fourth_set", "fifth_set")
PENALTY = 1 / 128  # of a squared weight; chosen with whole sets left out
MIN_ANSWERS = 2  # with an n-gram
NEWTON_STEPS = 10  # the first ones from zero; far past convergence
TOLERANCE = 1e-11
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
    """Weights by bucket before rounding."""

    weights: Vector
    bias: float

    def evidence(self, answer: Answer) -> float:
        """Returns the log-odds of a refusal."""
        return self.bias + float(self.weights[answer.buckets].sum()) / _norm(answer)


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
    buckets = ngram_buckets([clause.text for clause in evidence.clauses])
    cues = refusal_model().evidence(*refusal_features(evidence))
    return Answer(source, language, refused, evidence, buckets, cues)


def train(answers: Sequence[Answer]) -> NgramModel:
    """Fits the n-grams, and then the factors of n-grams and cues."""
    whole = _fit_ngrams(answers)
    scale = float(np.abs(whole.weights).max()) / UNITS
    rounded = np.rint(whole.weights / scale).astype(np.int8)
    design, target = [], []
    for name in BY_OTHERS:
        held_out = [answer for answer in answers if answer.source == name]
        if not held_out:
            continue
        rest = _fit_ngrams([answer for answer in answers if answer.source != name], whole)
        for answer in held_out:
            design.append((rest.evidence(answer), answer.cue_evidence, 1.0))
            target.append(float(answer.refused))
    ngram_factor, cue_factor, bias = _fit_factors(np.array(design), np.array(target))
    return NgramModel(
        rounded,
        scale=float(f"{scale:.6g}"),
        bias=round(whole.bias, DIGITS),
        ngram_factor=round(ngram_factor, DIGITS),
        cue_factor=round(cue_factor, DIGITS),
        combined_bias=round(bias, DIGITS),
    )


def _norm(answer: Answer) -> float:
    return float(np.sqrt(len(answer.buckets)))


def _fit_ngrams(answers: Sequence[Answer], start: Fit | None = None) -> Fit:
    """Fits a ridge-penalised logistic regression by Newton's method with conjugate gradients."""
    from scipy import sparse
    from scipy.sparse import linalg

    from evaluation.scorers.refusal.model.character_ngrams import BUCKETS

    counts = np.bincount(np.concatenate([answer.buckets for answer in answers]), minlength=BUCKETS)
    active = np.flatnonzero(counts >= MIN_ANSWERS)
    ends = np.cumsum([0, *(len(answer.buckets) for answer in answers)])
    values = np.concatenate([np.full(len(answer.buckets), 1 / _norm(answer)) for answer in answers])
    columns = np.concatenate([answer.buckets for answer in answers])
    design = sparse.csr_matrix((values, columns, ends), shape=(len(answers), BUCKETS))[:, active]
    design = sparse.hstack([design, np.ones((len(answers), 1))]).tocsr()
    transposed = design.T.tocsr()
    ridge = np.full(design.shape[1], PENALTY)
    ridge[-1] = 1e-6  # of the bias
    target = np.array([float(answer.refused) for answer in answers])
    weights = np.zeros(design.shape[1])
    if start:
        weights[:-1], weights[-1] = start.weights[active], start.bias
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-(design @ weights)))
        gradient = transposed @ (target - probability) - ridge * weights
        if float(np.abs(gradient).max()) < TOLERANCE:
            break
        variance = probability * (1 - probability)

        def times(vector: Vector, variance: Vector = variance) -> Vector:
            return np.asarray(transposed @ (variance * (design @ vector)) + ridge * vector)

        hessian = linalg.LinearOperator((len(weights), len(weights)), matvec=times, dtype=np.float64)
        step, _ = linalg.cg(hessian, gradient, rtol=1e-7, maxiter=2000)
        weights = weights + step
    found = np.zeros(BUCKETS)
    found[active] = weights[:-1]
    return Fit(found, float(weights[-1]))


def _fit_factors(design: Vector, target: Vector) -> list[float]:
    factors = np.array([1.0, 0.5, 0.0])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-(design @ factors)))
        hessian = (design * (probability * (1 - probability))[:, None]).T @ design
        factors += np.linalg.solve(hessian, design.T @ (target - probability))
    return [float(factor) for factor in factors]


def measure(model: NgramModel, answers: Sequence[Answer]) -> dict[str, Any]:
    """Returns F1, precision and recall of refusals, in all and by language."""
    flags: dict[str, list[tuple[bool, bool]]] = {"all": []}
    for answer in answers:
        texts = [clause.text for clause in answer.evidence.clauses]
        found = answer.evidence.is_readable and model.score(texts, answer.cue_evidence) >= 0.5
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
        "about": "How ngrams.npz was trained, and numbers of character_ngrams.py.",
        "learned_from": "Answers that we wrote: benchmarks/evaluation/refusal_answers and "
        "tests/evaluation/scorers/refusal_answers, without English and Italian",
        "written_by": "benchmarks/evaluation/train_refusal_ngrams.py",
        "answers": {name: sum(answer.source == name for answer in answers) for name in sorted(sources)},
        "penalty": PENALTY,
        "min_answers": MIN_ANSWERS,
        "factors_fitted_to": list(BY_OTHERS),
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
