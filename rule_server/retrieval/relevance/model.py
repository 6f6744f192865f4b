"""The learned part of the decision whether any rule applies: three perceptrons on the vectors of a question.

`core.npz` holds their weights, and `core.json` how they were trained; both are written by
`python -m benchmarks.retrieval.training.relevance`. They contain no text and no vector of a training prompt.
They were trained for the packaged rules, so they decide only about rules that share texts with those.
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Weights = NDArray[np.float32]

FOLDER = Path(__file__).parent
WEIGHTS_FILE, RECIPE_FILE = "core.npz", "core.json"
LAYERS = ("hidden", "hidden_bias", "output", "output_bias")
Part = Literal["multilingual", "both", "other"]
PARTS: tuple[Part, ...] = ("multilingual", "both", "other")
INPUT_SCALE = 8.0
"""Vectors have length 1, and so entries far below 1; the perceptrons were trained on scaled ones."""
SHARED_TEXTS = 0.5
"""Share of a rule's texts that a packaged rule must contain for the learned decision to apply to it."""


@dataclass(frozen=True)
class Perceptron:
    """One hidden layer of rectified units: vectors (n, d) -> logits (n,)."""

    hidden: Weights
    hidden_bias: Weights
    output: Weights
    output_bias: Weights

    def logits(self, vectors: Weights) -> Floats:
        """Returns the log-odds that a rule applies, for each vector."""
        # In float32, the last digit of a score would depend on the other questions of its batch.
        units = np.maximum(vectors.astype(np.float64) * INPUT_SCALE @ self._hidden + self.hidden_bias, 0)
        return np.asarray(units @ self.output.astype(np.float64) + float(self.output_bias[0]))

    @cached_property
    def _hidden(self) -> Floats:
        return self.hidden.astype(np.float64)


@dataclass(frozen=True)
class Scale:
    """Log-odds that a rule applies: the perceptron's logit + `nearness` * the rule's nearness - `offset`."""

    nearness: float
    offset: float
    """Chosen so that 0 (a score of 0.5) is the recommended threshold."""


@dataclass(frozen=True)
class RelevanceModel:
    """The learned decision. Immutable."""

    multilingual: Perceptron
    """On the multilingual vector: decides first, in every language."""
    both: Perceptron
    """On the multilingual and the English vector side by side: decides in English."""
    other: Perceptron
    """On the multilingual vector and that of the encoder of other languages: decides in these."""
    scales: Mapping[Part, Scale]
    gate: float
    """Log-odds of the first decision, after its scale, below which the English encoder is not used."""
    other_gate: float
    """The same for the encoder of other languages."""
    english: str
    """Fingerprint of the English encoder that `both` was trained with."""
    texts: frozenset[str]
    """Short keys of the packaged rules' texts."""
    digest: str
    """SHA-256 of the weights and recipe, 64 hex characters."""

    def covers(self, texts: Sequence[str]) -> bool:
        """Returns whether most of a rule's texts belong to one packaged rule."""
        needed, found = SHARED_TEXTS * len(texts), 0
        for left, text in zip(reversed(range(len(texts))), texts, strict=True):
            found += short_key(text) in self.texts
            if found >= needed or found + left < needed:
                break  # a large rulebook has many texts, and hashing them takes time at every start
        return found >= needed


def short_key(text: str) -> str:
    """Returns the key by which a rule's text is recognised, 10 hex characters."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def weights_bytes(perceptrons: Mapping[Part, Perceptron]) -> bytes:
    """Returns the content of `core.npz`. The same weights give the same bytes."""
    arrays = {
        f"{name}.{layer}": getattr(perceptron, layer)
        for name, perceptron in perceptrons.items()
        for layer in LAYERS
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


@cache
def relevance_model() -> RelevanceModel:
    """Loads the packaged model.

    Raises:
        ArtefactError: its files are missing, or are not those that were trained.
    """
    return load_model(FOLDER)


def load_model(folder: Path) -> RelevanceModel:
    """Loads the model in a folder. Raises ArtefactError."""
    try:
        raw, recipe_text = (folder / WEIGHTS_FILE).read_bytes(), (folder / RECIPE_FILE).read_bytes()
        recipe: dict[str, Any] = json.loads(recipe_text)
        if hashlib.sha256(raw).hexdigest() != recipe["weights_sha256"]:
            raise ValueError(f"{WEIGHTS_FILE} is not the file that {RECIPE_FILE} describes")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            perceptrons = {
                name: Perceptron(*(arrays[f"{name}.{layer}"].astype(np.float32) for layer in LAYERS))
                for name in PARTS
            }
        return RelevanceModel(
            **perceptrons,
            scales={part: Scale(**recipe["scales"][part]) for part in PARTS},
            gate=recipe["gate"],
            other_gate=recipe["other_gate"],
            english=recipe["english"],
            texts=frozenset(recipe["texts"]),
            digest=hashlib.sha256(raw + recipe_text).hexdigest(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"the relevance model in {folder} cannot be used ({error}): install the package again"
        ) from None
