"""The learned part of the order of rules: how likely each category of the packaged rules is.

Two perceptrons give the log-probabilities of the categories from the vectors of a question; they are added to
the nearness of a rule. `ranking.npz` holds their weights, and `ranking.json` how they were trained; both are
written by `python -m benchmarks.retrieval.training.ranking`. They contain no text and no vector of a training
prompt. They order only the packaged rules, and do not decide whether a rule applies.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
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
Part = Literal["both", "other"]
PARTS: tuple[Part, ...] = ("both", "other")


@dataclass(frozen=True)
class CategoryPerceptron:
    """One hidden layer of rectified units: vectors (n, d) -> log-probabilities (n, categories)."""

    hidden: Weights
    """(d, units)."""
    hidden_bias: Weights
    output: Weights
    """(units, categories)."""
    output_bias: Weights

    def log_probabilities(self, vectors: Weights) -> Floats:
        """Returns the logarithm of each category's probability, for each vector."""
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
class RankingModel:
    """The learned order. Immutable."""

    both: CategoryPerceptron
    """On the multilingual and the English vector side by side: orders the rules for English questions."""
    other: CategoryPerceptron
    """On the vector of the encoder of other languages: orders the rules for questions in these."""
    categories: tuple[str, ...]
    shares: Mapping[str, float]
    """Nearness added to a rule per unit of its category's log-probability, by part."""
    multilingual_share: float
    """Weight of the nearness in the multilingual space, for English questions."""
    slope: float
    """Log-odds between a rule and the first one per unit of difference in nearness."""
    english: str
    """Fingerprint of the English encoder that `both` was trained with."""
    digest: str
    """SHA-256 of the weights and recipe, 64 hex characters."""

    def gains(self, vectors: Weights, part: Part) -> Floats:
        """Returns the nearness to add to the rules of each category, (n, categories)."""
        learned: CategoryPerceptron = getattr(self, part)
        return self.shares[part] * learned.log_probabilities(vectors)

    def position(self, category: str) -> int:
        """Returns the column of a category, or -1 if nothing was learned for it."""
        return self.categories.index(category) if category in self.categories else -1


def ranking_bytes(perceptrons: Mapping[Part, CategoryPerceptron]) -> bytes:
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
                part: CategoryPerceptron(*(arrays[f"{part}.{layer}"].astype(np.float32) for layer in LAYERS))
                for part in PARTS
            }
        return RankingModel(
            **perceptrons,
            categories=tuple(recipe["categories"]),
            shares={part: float(recipe["shares"][part]) for part in PARTS},
            multilingual_share=float(recipe["multilingual_share"]),
            slope=float(recipe["slope"]),
            english=recipe["english"],
            digest=hashlib.sha256(raw + recipe_text).hexdigest(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"the ranking model in {folder} cannot be used ({error}): install the package again"
        ) from None
