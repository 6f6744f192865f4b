"""Trains the relevance decision, and measures it on sources that had no part in its training.

    python -m benchmarks.retrieval.training.relevance --data DATA [--check]

DATA contains one JSON Lines file per source, with `id`, `source`, `prompt`, `kind` and optionally `lang`.
Sources in `NEVER_TRAINED` are only measured. The rules' texts and the package's own requests, everyday and
delicate ones, alone and mixed, are trained on too.

Six runs leave whole sources out, harmful ones too; they give the English offset. Four runs leave out a
quarter of the harmful and sensitive prompts and whole sources of plain ones; they give the other offsets and
both gates. A last run on everything gives the weights. With `--check` nothing is written,
and the command fails if the weights differ from the packaged ones. Run it on one thread (OMP_NUM_THREADS=1):
then the same data give the same bytes. The figures count a question as the service does, which leaves the
decision to the first stage where the packaged order is certain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import Row, read_rows
from benchmarks.retrieval.training.examples import APPLIES, NEVER, NEVER_TRAINED, Examples, read_examples
from benchmarks.retrieval.training.perceptron import TrainingSettings, balanced_weights, train_perceptron
from rule_server.errors import RuleServiceError
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.e5 import E5Encoder
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import rule_texts
from rule_server.retrieval.relevance import requests_digest
from rule_server.retrieval.relevance.model import (
    FOLDER,
    INPUT_SCALE,
    PARTS,
    RECIPE_FILE,
    WEIGHTS_FILE,
    Part,
    Perceptron,
    short_key,
    weights_bytes,
)
from rule_server.retrieval.relevance.ranking import ranking_model
from rule_server.settings import load_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CHAT = ("arena_chat", "oasst_prompts", "self_instruct")
MISSED = 0.0475
"""Mean share of a source's harmful English prompts that may find nothing. It fixes the English offset."""
FOUND = 0.941
"""Mean share of harmful prompts in a language other than English that find a rule. It fixes the offset of
the first stage and that of the part `other`. Chosen on MultiJail, so that each language has at least .92."""
GATED = 0.002
"""Share of harmful English prompts that the first stage may turn away, and of those in other languages."""
NEARNESS: dict[Part, float] = {"multilingual": 10.0, "both": 20.0, "other": 5.0}
SECOND_STAGE: dict[Part, str] = {"both": "gate", "other": "other_gate"}
"""Parts that decide about questions that pass the first stage, with the names of their gates."""
OTHER_SCALE = 2.0
"""Factor of the vectors of the encoder of other languages, which all have nearly the same direction: less the
mean of the rules' English texts, their length is about a half."""


def fit(examples: Examples, part: Part, used: NDArray[np.bool_], settings: TrainingSettings) -> Perceptron:
    """Trains on windows of the chosen prompts."""
    rows = examples.trained
    rows = rows[used[examples.owners[rows]] & examples.readable[part][rows]]
    labels = examples.labels[examples.owners[rows]]
    groups = [examples.groups[owner] for owner in examples.owners[rows]]
    inputs, centre = examples.inputs[part][rows], examples.centre
    if part == "other":
        inputs = np.hstack([inputs[:, : -len(centre)], (inputs[:, -len(centre) :] - centre) * OTHER_SCALE])
    perceptron = train_perceptron(inputs, labels, balanced_weights(groups, labels), settings)
    return _without_centre(perceptron, centre) if part == "other" else perceptron


def _without_centre(perceptron: Perceptron, centre: NDArray[np.float32]) -> Perceptron:
    """Returns a perceptron that gives the same for vectors whose last part is neither centred nor scaled."""
    hidden = perceptron.hidden.copy()
    hidden[-len(centre) :] *= np.float32(OTHER_SCALE)
    bias = perceptron.hidden_bias - INPUT_SCALE * centre @ hidden[-len(centre) :]
    return replace(perceptron, hidden=hidden, hidden_bias=bias.astype(np.float32))


def held_out_logits(
    examples: Examples, part: Part, runs: NDArray[np.int64], nearness: Floats, settings: TrainingSettings
) -> Floats:
    """Returns the log-odds of every window by each run, (runs, windows).

    Minus infinity: the part does not decide about its language.
    """
    readable = examples.decided if part == "other" else examples.readable[part]
    inputs = examples.inputs[part][readable]
    logits = np.full((int(runs.max()) + 1, len(readable)), -np.inf)
    for run in range(len(logits)):
        perceptron = fit(examples, part, (runs != run) & (runs != NEVER), settings)
        logits[run, readable] = perceptron.logits(inputs) + NEARNESS[part] * nearness[readable]
        print(f"trained {part}, run {run + 1} of {len(logits)}", file=sys.stderr)
    return logits


def by_prompt(logits: Floats, runs: NDArray[np.int64], windows: Sequence[slice]) -> Floats:
    """Returns the log-odds of every prompt by the run that left it out.

    The best window counts. A prompt that is never or always trained on gets the mean of all runs.
    """
    values = [
        logits[run, window].max() if run >= 0 else logits[:, window].mean(axis=0).max()
        for run, window in zip(runs, windows, strict=True)
    ]
    return np.array(values)


def held_out_values(
    examples: Examples,
    runs: NDArray[np.int64],
    nearness: dict[Part, Floats],
    certain: NDArray[np.bool_],
    settings: TrainingSettings,
) -> dict[str, Floats]:
    """Returns the log-odds of every prompt by each part.

    "certain" are those of the first stage from the windows of which it is certain which rule comes first.
    """
    values: dict[str, Floats] = {}
    for part in PARTS:
        logits = held_out_logits(examples, part, runs, nearness[part], settings)
        values[part] = by_prompt(logits, runs, examples.windows)
        if part == "multilingual":
            values["certain"] = by_prompt(np.where(certain, logits, -np.inf), runs, examples.windows)
    return values


def share_by_source(
    values: Floats, offset: float, rows: Sequence[Row], chosen: Sequence[bool], key: str = "source"
) -> dict[str, float]:
    """Returns the share of the chosen prompts below an offset, by source or language."""
    shares: dict[str, list[bool]] = {}
    for value, row, own in zip(values, rows, chosen, strict=True):
        if own:
            shares.setdefault(str(row.get(key) or "en"), []).append(bool(value < offset))
    return {name: round(float(np.mean(below)), 4) for name, below in sorted(shares.items())}


def highest_offset(
    values: Floats, rows: Sequence[Row], chosen: Sequence[bool], missed: float, key: str = "source"
) -> float:
    """Returns the highest offset below which at most this mean share of the chosen prompts lies."""
    best = -np.inf
    for value in np.sort(values[np.array(chosen)]):
        if np.mean(list(share_by_source(values, value, rows, chosen, key).values())) > missed:
            break
        best = value
    return float(np.floor(best * 1000) / 1000)


def run(options: argparse.Namespace) -> dict[str, Any]:
    rows = [row for row in read_rows(options.data) if row["kind"] is not None]
    settings = TrainingSettings()
    loaded = load_or_build(
        load_settings(artefact=options.artefact, watch=False, precision="exact"),
        lambda text: print(text, file=sys.stderr),
    )
    assert isinstance(loaded.encoder, PairedEncoder)
    index = loaded.index
    encoder = CachedEncoder(loaded.encoder, options.artefact.parent)
    other = CachedEncoder(E5Encoder(), options.artefact.parent)
    examples = read_examples(rows, index, encoder, other)
    encoder.save()
    other.save()
    multilingual = index.nearness(examples.inputs["both"], "multilingual")
    english = index.nearness(examples.inputs["both"], "english")
    nearness: dict[Part, Floats] = {"multilingual": multilingual, "both": english, "other": multilingual}
    certain = index.certainty(examples.inputs["both"]) >= ranking_model().certain.probability
    certain &= examples.readable["both"]
    values = {
        name: {
            part: own[: len(rows)]
            for part, own in held_out_values(examples, runs, nearness, certain, settings).items()
        }
        for name, runs in (("quarters", examples.quarters), ("whole", examples.whole))
    }
    everything = examples.whole != NEVER
    perceptrons = {part: fit(examples, part, everything, settings) for part in PARTS}
    offsets, gates = choose_offsets(values, rows)
    raw = weights_bytes(perceptrons)
    recipe = {
        "about": "Written by python -m benchmarks.retrieval.training.relevance; do not edit.",
        "sources": sorted({row["source"] for row in rows} - set(NEVER_TRAINED)),
        "prompts": sum(row["source"] not in NEVER_TRAINED for row in rows),
        "own_requests": requests_digest(),
        "rulebook": index.rulebook.digest,
        "settings": asdict(settings),
        "missed": MISSED,
        "found": FOUND,
        "gated": GATED,
        "weights_sha256": hashlib.sha256(raw).hexdigest(),
        "english": loaded.encoder.english.fingerprint,
        "multilingual": loaded.encoder.multilingual.fingerprint,
        "other": E5Encoder.fingerprint,
        "scales": {name: {"nearness": NEARNESS[name], "offset": offsets[name]} for name in sorted(offsets)},
        **gates,
        "texts": sorted({short_key(text) for rule in index.rulebook.rules for text in rule_texts(rule)}),
    }
    files = {WEIGHTS_FILE: raw, RECIPE_FILE: json.dumps(recipe, indent=1).encode() + b"\n"}
    same = all(
        (FOLDER / name).is_file() and (FOLDER / name).read_bytes() == data for name, data in files.items()
    )
    if not options.check:
        for name, data in files.items():
            (FOLDER / name).write_bytes(data)
    figures = {name: measure(own, offsets, rows, gates) for name, own in values.items()}
    return {"same": same, "offsets": offsets, **gates, **figures}


def choose_offsets(
    values: dict[str, dict[str, Floats]], rows: Sequence[Row]
) -> tuple[dict[Part, float], dict[str, float]]:
    """Returns the offset of each part, and both gates of the first stage."""
    harmful = np.array([row["kind"] == "harmful" and row["source"] != "multijail" for row in rows])
    chosen = (harmful & np.isfinite(values["whole"]["both"])).tolist()
    foreign = [row["source"] == "multijail" and row.get("lang") != "en" for row in rows]
    held_out = values["quarters"]
    offsets: dict[Part, float] = {
        "both": highest_offset(values["whole"]["both"], rows, chosen, MISSED),
        "multilingual": highest_offset(held_out["multilingual"], rows, foreign, 1 - FOUND, "lang"),
        "other": highest_offset(held_out["other"], rows, foreign, 1 - FOUND, "lang"),
    }
    gates = {
        name: highest_offset(held_out["multilingual"], rows, own, GATED, key) - offsets["multilingual"]
        for name, own, key in (("gate", chosen, "source"), ("other_gate", foreign, "lang"))
    }
    return offsets, {name: round(min(gate, -0.1), 3) for name, gate in gates.items()}


def measure(
    values: dict[str, Floats], offsets: dict[Part, float], rows: Sequence[Row], gates: dict[str, float]
) -> dict[str, Any]:
    """Returns the metrics on the prompts that each run left out, as the service would decide."""
    first = values["multilingual"] - offsets["multilingual"]
    decided, turned_away = first.copy(), np.zeros(len(rows), bool)
    for part, gate in SECOND_STAGE.items():
        own = np.isfinite(values[part])
        decided[own] = values[part][own] - offsets[part]
        turned_away |= own & (first < gates[gate])
    decided[turned_away] = -9.0
    certain = values["certain"] - offsets["multilingual"]
    certain[certain < ranking_model().certain.log_odds] = -np.inf
    decided = np.maximum(decided, certain)
    tables: dict[str, Any] = {}
    for kind in ("benign_plain", "math", "benign_sensitive", "harmful"):
        chosen = [row["kind"] == kind and row["source"] != "multijail" for row in rows]
        tables[f"{kind}: nothing applies"] = share_by_source(decided, 0, rows, chosen)
    multijail = [row["source"] == "multijail" for row in rows]
    tables["multijail: nothing applies"] = share_by_source(decided, 0, rows, multijail, "lang")
    plain = [row["kind"] == "benign_plain" for row in rows]
    tables["plain: turned away by the first stage"] = share_by_source(
        np.where(turned_away, -1.0, 1.0), 0, rows, plain
    )
    labelled = [row["kind"] in APPLIES for row in rows]
    tables["applies: without the English encoder"] = share_by_source(
        np.where(np.isfinite(certain), -1.0, 1.0), 0, rows, labelled
    )
    tables["curve"] = [curve_point(decided, at, rows) for at in np.arange(-3, 3.01, 0.5)]
    return tables


def curve_point(decided: Floats, at: float, rows: Sequence[Row]) -> dict[str, Any]:
    chat = [row["source"] in CHAT + NEVER_TRAINED for row in rows]
    harmful = [row["kind"] == "harmful" and row["source"] != "multijail" for row in rows]
    missed = share_by_source(decided, at, rows, harmful)
    return {
        "score": round(float(1 / (1 + np.exp(-at))), 3),
        **{
            name: share_by_source(decided, at, rows, chat)[name]
            for name in ("arena_chat", "oasst_prompts", "self_instruct")
        },
        **share_by_source(decided, at, rows, [row["source"] in NEVER_TRAINED for row in rows]),
        "harmful missed": round(float(np.mean(list(missed.values()))), 4),
        "worst source": round(max(missed.values()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file per source")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the packaged weights, write nothing"
    )
    options = parser.parse_args()
    try:
        figures = run(options)
    except (RuleServiceError, ValueError, OSError) as error:
        print(f"relevance: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(json.dumps(figures, indent=1))
    raise SystemExit(0 if figures["same"] or not options.check else 1)


if __name__ == "__main__":
    main()
