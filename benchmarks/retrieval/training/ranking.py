"""Trains the order of the packaged rules, and measures it on prompts and sources that it was not trained on.

    python -m benchmarks.retrieval.training.ranking --data DATA --map DATA/label_map.json [--check]

DATA and the map are those of `benchmarks.retrieval.quality`. The training texts are the English texts of the
rules, and the prompts whose label names categories, any of which counts as right.

Ten runs leave one source out each, and four runs a random quarter of all prompts; the table counts every
prompt by the run that left it out. Five runs leave a fifth of the rules' queries and examples out, of the
index too, and count how often their rule is found. A last run on everything gives the weights. With `--check`
nothing is written, and the command fails if the weights differ from the packaged ones. Run it on one thread
(OMP_NUM_THREADS=1): then the same data give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import LabelMap
from benchmarks.retrieval.training.perceptron import TrainingSettings, half_precision
from benchmarks.retrieval.training.ranking_texts import (
    FOLDS,
    QUARTERS,
    Prompt,
    Texts,
    read_prompts,
    rules_by_category,
    training_texts,
    without_fold,
)
from benchmarks.retrieval.training.relevance import OTHER_SCALE
from benchmarks.retrieval.training.rule_perceptron import train_rule_perceptron
from rule_server.errors import RuleServiceError
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.e5 import E5Encoder
from rule_server.retrieval.encoders.multilingual import DIMENSION
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import RuleIndex
from rule_server.retrieval.relevance.model import INPUT_SCALE
from rule_server.retrieval.relevance.ranking import (
    FOLDER,
    PARTS,
    RECIPE_FILE,
    WEIGHTS_FILE,
    Certainty,
    Part,
    RankingModel,
    RulePerceptron,
    Share,
    ranking_bytes,
)
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD
from rule_server.settings import load_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

TOP_K = 3
BATCH = 64
"""Prompts that are scored together, to bound memory."""
PERCEPTRON = TrainingSettings(
    units=384, members=1, epochs=30, batch=256, learning_rate=2e-3, dropout=0.6, smoothing=0.0
)
"""Settings of each perceptron."""

SHARES: dict[Part, Share] = {
    "multilingual": Share(0.04, 0.02),
    "both": Share(0.03, 0.02),
    "other": Share(0.06, 0.01),
}
ENGLISH: tuple[Part, Part] = ("multilingual", "both")
"""Parts that order the rules for English questions."""
CERTAIN = Certainty(2.5, 0.55)
"""When an English question is not read by the English encoder."""


@dataclass(frozen=True)
class RankingSettings:
    """Settings of the order. Chosen with whole sources left out: see the retrieval log."""

    perceptron: TrainingSettings = PERCEPTRON
    rules_weight: float = 1.0
    """Weight of all rules' texts, as a multiple of that of all prompts."""
    multilingual_share: float = 0.2
    """Weight of the nearness in the multilingual space, for English questions."""
    slope: float = 8.0
    """Log-odds between a rule and the first one per unit of difference in nearness."""


def balanced_weights(groups: NDArray[np.str_], settings: RankingSettings) -> Floats:
    """Returns a weight for each text: sources by the square root of their size, all rules as much as all
    sources."""
    counts = Counter(groups.tolist())
    weights = np.array([counts[group] ** -0.5 for group in groups.tolist()])
    rules = groups == ""
    weights[rules] *= settings.rules_weight * weights[~rules].sum() / weights[rules].sum()
    return np.asarray(weights / weights.mean(), np.float32)


def fit(texts: Texts, used: NDArray[np.bool_], part: Part, settings: RankingSettings) -> RulePerceptron:
    """Trains on some texts. The result reads vectors as the encoders give them."""

    def train(inputs: Floats) -> RulePerceptron:
        weights = balanced_weights(texts.groups[used], settings)
        return train_rule_perceptron(inputs[used], texts.allowed[used], weights, settings.perceptron)

    if part == "multilingual":
        return train(np.ascontiguousarray(texts.vectors[:, :DIMENSION]))
    if part == "both":
        return train(texts.vectors)
    assert texts.other is not None
    assert texts.projection is not None
    projected = texts.other @ texts.projection
    centre = projected.mean(axis=0)
    perceptron = train(((projected - centre) * OTHER_SCALE).astype(np.float32))
    hidden = OTHER_SCALE * perceptron.hidden.astype(np.float64)
    return replace(
        perceptron,
        hidden=half_precision(texts.projection @ hidden),
        hidden_bias=half_precision(perceptron.hidden_bias - INPUT_SCALE * centre @ hidden),
    )


def hits(index: RuleIndex, prompts: Sequence[Prompt], model: RankingModel) -> list[tuple[str, bool, bool]]:
    """Returns source, hit@1 and hit@3 of each prompt at the default threshold, ordered by a model."""
    ordered = index.ranked_by(model)
    found = [
        scores
        for at in range(0, len(prompts), BATCH)
        for scores in ordered.score_batch(
            np.concatenate([prompt.windows for prompt in prompts[at : at + BATCH]]),
            [len(prompt.windows) for prompt in prompts[at : at + BATCH]],
        )
    ]
    results = []
    for prompt, scores in zip(prompts, found, strict=True):
        rules = ordered.select(scores, top_k=TOP_K, threshold=DEFAULT_THRESHOLD)
        right = [hit.rule.category in prompt.expected for hit in rules[:TOP_K]]
        results.append((prompt.source, any(right[:1]), any(right)))
    return results


def by_source(results: Sequence[tuple[str, bool, bool]]) -> dict[str, list[float]]:
    """Returns hit@1 and hit@3 of each source, and their plain average."""
    shares = {
        name: np.mean([flags for source, *flags in results if source == name], axis=0)
        for name in sorted({source for source, *_ in results})
    }
    shares["average"] = np.mean(list(shares.values()), axis=0)
    return {name: [round(float(share), 4) for share in own] for name, own in shares.items()}


def run(options: argparse.Namespace) -> dict[str, Any]:
    labels: LabelMap = json.loads(options.map.read_text(encoding="utf-8"))["map"]
    settings = RankingSettings()
    loaded = load_or_build(
        load_settings(artefact=options.artefact, watch=False, precision="exact"),
        lambda text: print(text, file=sys.stderr),
    )
    assert isinstance(loaded.encoder, PairedEncoder)
    index = loaded.index
    encoder = CachedEncoder(loaded.encoder, options.artefact.parent)
    prompts = read_prompts(options.data, labels, encoder)
    other = CachedEncoder(E5Encoder(), options.artefact.parent)
    texts = training_texts(prompts, index, encoder, other)
    encoder.save()
    other.save()
    rules = rules_by_category(index)
    everything = np.ones(len(texts.groups), bool)
    perceptrons = {part: fit(texts, everything, part, settings) for part in PARTS}
    raw = ranking_bytes(perceptrons)
    recipe: dict[str, Any] = {
        "about": "Written by python -m benchmarks.retrieval.training.ranking; do not edit.",
        "sources": sorted({prompt.source for prompt in prompts}),
        "prompts": len(prompts),
        "rulebook": index.rulebook.digest,
        "settings": {"perceptron": asdict(settings.perceptron), "rules_weight": settings.rules_weight},
        "weights_sha256": hashlib.sha256(raw).hexdigest(),
        "english": loaded.encoder.english.fingerprint,
        "multilingual": loaded.encoder.multilingual.fingerprint,
        "other": E5Encoder.fingerprint,
        "rules": rules,
        "shares": {part: asdict(SHARES[part]) for part in PARTS},
        "multilingual_share": settings.multilingual_share,
        "slope": settings.slope,
        "certain": asdict(CERTAIN),
    }
    files = {WEIGHTS_FILE: raw, RECIPE_FILE: json.dumps(recipe, indent=1).encode() + b"\n"}
    same = all(
        (FOLDER / name).is_file() and (FOLDER / name).read_bytes() == data for name, data in files.items()
    )
    if not options.check:
        for name, data in files.items():
            (FOLDER / name).write_bytes(data)
    model = RankingModel(
        **perceptrons,
        rules=tuple(rules),
        categories=tuple(rules.values()),
        shares=SHARES,
        multilingual_share=settings.multilingual_share,
        slope=settings.slope,
        certain=CERTAIN,
        english=recipe["english"],
        digest="",
    )

    def without(used: NDArray[np.bool_]) -> RankingModel:
        multilingual, both = (fit(texts, used, part, settings) for part in ENGLISH)
        return replace(model, multilingual=multilingual, both=both)

    figures = measure(index, prompts, texts, model, without)
    figures["rules' texts left out"] = own_rules(index, texts, model, without)
    return {"same": same, **figures}


def measure(
    index: RuleIndex,
    prompts: Sequence[Prompt],
    texts: Texts,
    model: RankingModel,
    without: Callable[[NDArray[np.bool_]], RankingModel],
) -> dict[str, Any]:
    """Returns hit@1 and hit@3 by source, for each way of leaving prompts out.

    Args:
        without: trains on some of the texts only.
    """
    figures = {"nearness alone": by_source(hits(index, prompts, without_learning(model)))}
    for name, runs, own in (
        ("source left out", sorted({prompt.source for prompt in prompts}), texts.groups),
        ("quarter left out", list(range(QUARTERS)), texts.quarters),
    ):
        results: list[tuple[str, bool, bool]] = []
        for out in runs:
            left_out = [prompt for prompt, group in zip(prompts, own, strict=False) if group == out]
            results += hits(index, left_out, without(own != out))
        figures[name] = by_source(results)
        print(f"measured: {name}", file=sys.stderr)
    return {**figures, "trained on these prompts": by_source(hits(index, prompts, model))}


def own_rules(
    index: RuleIndex,
    texts: Texts,
    model: RankingModel,
    without: Callable[[NDArray[np.bool_]], RankingModel],
) -> dict[str, list[float]]:
    """Returns how often a query or example of a rule, which nothing else knows, finds this rule.

    The figures are shares of such texts: the rule is first, and among three; both of all rules, and then of
    those of its category.
    """
    found: dict[str, list[list[bool]]] = {"learned": [], "nearness alone": []}
    rows = np.flatnonzero(texts.groups == "")
    for fold in range(FOLDS):
        used = np.ones(len(texts.groups), bool)
        used[rows[texts.folds[rows] == fold]] = False
        reduced = without_fold(index, fold)
        orders = {"learned": without(used), "nearness alone": without_learning(model)}
        for name, order in orders.items():
            ordered = reduced.ranked_by(order)
            for at in np.flatnonzero(~used):
                scores = ordered.scores(texts.vectors[at : at + 1])
                rule = texts.rules[at]
                category = index.rulebook.served[rule].category
                lists = [ordered.ranked(scores, TOP_K), ordered.ranked(scores, TOP_K, [category])]
                ids = [[hit.rule.id for hit in hits] for hits in lists]
                found[name].append([rule in own[:count] for own in ids for count in (1, TOP_K)])
    print("measured: rules' texts left out", file=sys.stderr)
    return {name: np.mean(flags, axis=0).round(4).tolist() for name, flags in found.items()}


def without_learning(model: RankingModel) -> RankingModel:
    """Returns a model that leaves the order to the nearness."""
    return replace(
        model,
        shares=dict.fromkeys(PARTS, Share(0.0, 0.0)),
        multilingual_share=0.0,
        certain=Certainty(np.inf, 1.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file per source")
    parser.add_argument("--map", type=Path, required=True, help="label_map.json")
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
        print(f"ranking: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(json.dumps(figures, indent=1))
    raise SystemExit(0 if figures["same"] or not options.check else 1)


if __name__ == "__main__":
    main()
