"""The learned part of the order of rules: how likely each of the packaged rules is.

Three perceptrons give the log-probabilities of the packaged rules from the vectors of a question; they are
added to the nearness of a rule. `ranking.npz` holds their weights, and `ranking.json` how they were trained;
both are written by `python -m benchmarks.retrieval.training.ranking`. They contain no text and no vector of a
training prompt. They order only the packaged rules, and do not decide whether a rule applies. The first one
also tells whether the English encoder is needed to order them and to decide.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rule_server.errors import ArtefactError
from rule_server.retrieval.relevance.model import INPUT_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Weights = NDArray[np.float32]

FOLDER = Path(__file__).parent
WEIGHTS_FILE, RECIPE_FILE = "ranking.npz", "ranking.json"
LAYERS = ("hidden", "hidden_bias", "output", "output_bias")
Part = Literal["multilingual", "both", "other"]
PARTS: tuple[Part, ...] = ("multilingual", "both", "other")


@dataclass(frozen=True)
class RulePerceptron:
    """One hidden layer of rectified units: vectors (n, d) -> log-probabilities (n, rules)."""

    hidden: Weights
    """(d, units)."""
    hidden_bias: Weights
    output: Weights
    """(units, rules)."""
    output_bias: Weights

    def log_probabilities(self, vectors: Weights) -> Floats:
        """Returns the logarithm of each rule's probability, for each vector."""
        hidden, output = self._layers
        units = np.maximum(vectors.astype(np.float64) * INPUT_SCALE @ hidden + self.hidden_bias, 0)
        return _log_softmax(units @ output + self.output_bias)

    @cached_property
    def _layers(self) -> tuple[Floats, Floats]:
        # In float32, the last digit of a score would depend on the other questions of its batch.
        return self.hidden.astype(np.float64), self.output.astype(np.float64)


def _log_softmax(logits: Floats) -> Floats:
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


@dataclass(frozen=True)
class Share:
    """Nearness added to a rule per unit of log-probability."""

    category: float
    """Of its category."""
    rule: float
    """Of the rule among those of its category, of which none counts as less likely than an average one."""


@dataclass(frozen=True)
class Certainty:
    """From when on the multilingual encoder alone decides and orders the rules for an English question."""

    log_odds: float
    """Log-odds of the first decision."""
    probability: float
    """Probability of the first rule, which must also be the nearest one."""


@dataclass(frozen=True)
class RankingModel:
    """The learned order. Immutable."""

    multilingual: RulePerceptron
    """On the multilingual vector: orders the rules for English questions for which it is certain."""
    both: RulePerceptron
    """On the multilingual and the English vector side by side: for other English questions."""
    other: RulePerceptron
    """On the vector of the encoder of other languages: for questions in these."""
    rules: tuple[str, ...]
    """Ids of the packaged rules, those of one category after another."""
    categories: tuple[str, ...]
    """Category of each of these rules."""
    shares: Mapping[Part, Share]
    multilingual_share: float
    """Weight of the nearness in the multilingual space, for English questions."""
    slope: float
    """Log-odds between a rule and the first one per unit of difference in nearness."""
    certain: Certainty
    english: str
    """Fingerprint of the English encoder that `both` was trained with."""
    digest: str
    """SHA-256 of the weights and recipe, 64 hex characters."""

    def learned(self, vectors: Weights, part: Part) -> LearnedOrder:
        """Returns the order that a part learned, for vectors (n, d)."""
        perceptron: RulePerceptron = getattr(self, part)
        rules = perceptron.log_probabilities(vectors)
        categories = np.logaddexp.reduceat(rules, self._starts, axis=1)
        share, sizes = self.shares[part], np.diff([*self._starts, len(self.rules)])
        least = -np.log(sizes)  # unlikely rules of a category keep the order of their nearness
        within = np.maximum(rules - np.repeat(categories, sizes, axis=1), np.repeat(least, sizes))
        gains = np.repeat(share.category * categories, sizes, axis=1) + share.rule * within
        unknown = share.category * categories + share.rule * least
        return LearnedOrder(np.hstack([gains, unknown]), np.exp(rules))

    def column(self, rule: str, category: str) -> int:
        """Returns the column of a rule in `LearnedOrder.gains`, or -1 if its category is unknown too.

        A rule that the model does not know, of a category that it knows, counts as an average one.
        """
        if rule in self.rules and self.categories[self.rules.index(rule)] == category:
            return self.rules.index(rule)
        known = [self.categories[start] for start in self._starts]
        return len(self.rules) + known.index(category) if category in known else -1

    @cached_property
    def _starts(self) -> list[int]:
        return category_starts(self.categories)


@dataclass(frozen=True)
class LearnedOrder:
    """The learned gains and probabilities for questions."""

    gains: Floats
    """Nearness to add to each rule, and then to an unknown rule of each category, (n, rules + categories)."""
    probabilities: Floats
    """Of each rule, (n, rules)."""


def category_starts(categories: Sequence[str]) -> list[int]:
    """Returns where each category begins in a list of those of rules, those of one category in a row."""
    return [at for at, name in enumerate(categories) if at == 0 or categories[at - 1] != name]


def ranking_bytes(perceptrons: Mapping[Part, RulePerceptron]) -> bytes:
    """Returns the content of `ranking.npz`. Weights are in half precision."""
    arrays = {
        f"{part}.{layer}": getattr(perceptrons[part], layer).astype(np.float16)
        for part in PARTS
        for layer in LAYERS
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


@cache
def ranking_model() -> RankingModel:
    """Loads the packaged model.

    Raises:
        ArtefactError: its files are missing, or are not those that were trained.
    """
    return load_ranking(FOLDER)


def load_ranking(folder: Path) -> RankingModel:
    """Loads the model in a folder. Raises ArtefactError."""
    try:
        raw, recipe_text = (folder / WEIGHTS_FILE).read_bytes(), (folder / RECIPE_FILE).read_bytes()
        recipe: dict[str, Any] = json.loads(recipe_text)
        if hashlib.sha256(raw).hexdigest() != recipe["weights_sha256"]:
            raise ValueError(f"{WEIGHTS_FILE} is not the file that {RECIPE_FILE} describes")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            perceptrons = {
                part: RulePerceptron(*(arrays[f"{part}.{layer}"].astype(np.float32) for layer in LAYERS))
                for part in PARTS
            }
        return RankingModel(
            **perceptrons,
            rules=tuple(recipe["rules"]),
            categories=tuple(recipe["rules"].values()),
            shares={part: Share(**recipe["shares"][part]) for part in PARTS},
            multilingual_share=float(recipe["multilingual_share"]),
            slope=float(recipe["slope"]),
            certain=Certainty(**recipe["certain"]),
            english=recipe["english"],
            digest=hashlib.sha256(raw + recipe_text).hexdigest(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"the ranking model in {folder} cannot be used ({error}): install the package again"
        ) from None
