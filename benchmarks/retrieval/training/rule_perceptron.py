"""Trains the perceptrons that order rules, in numpy alone.

The same data and numpy on one thread give the same weights, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.training.perceptron import (
    AdamW,
    NoisePool,
    TrainingSettings,
    batches,
    half_precision,
    kept_units,
)
from rule_server.retrieval.relevance.model import INPUT_SCALE
from rule_server.retrieval.relevance.ranking import RulePerceptron

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def train_rule_perceptron(
    vectors: Floats, allowed: Floats, weights: Floats, settings: TrainingSettings
) -> RulePerceptron:
    """Maximises the probability of the right rules of each text together.

    Args:
        vectors: (n, d), of length 1 or less.
        allowed: (n, rules), 1 where a rule is right.
        weights: (n,), of the texts in the loss, with mean 1.
    """
    random = np.random.default_rng(0)
    (count, width), units, rules = vectors.shape, settings.units, allowed.shape[1]
    parameters: list[Floats] = [
        random.standard_normal((width, units), np.float32) / np.float32(np.sqrt(width)),
        np.zeros(units, np.float32),
        random.standard_normal((units, rules), np.float32) / np.float32(np.sqrt(units)),
        np.zeros(rules, np.float32),
    ]
    optimiser = AdamW(parameters, settings, settings.epochs * (count // settings.batch))
    noise = NoisePool(random, settings)
    for rows in batches(random, count, settings):
        inputs = vectors[rows] * np.float32(INPUT_SCALE)
        inputs += noise.slice(inputs.shape)
        kept = kept_units(random, (len(rows), units), settings)
        optimiser.step(_gradients(parameters, inputs, allowed[rows], weights[rows], kept))
    return RulePerceptron(*map(half_precision, parameters))


def _gradients(
    parameters: Sequence[Floats], inputs: Floats, allowed: Floats, weights: Floats, kept: Floats
) -> list[Floats]:
    """Returns the gradients of the weighted negative log-probability of the right rules of one batch."""
    hidden, hidden_bias, output, output_bias = parameters
    units = inputs @ hidden
    units += hidden_bias
    kept *= units > 0
    units *= kept
    logits = units @ output + output_bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = odds / odds.sum(axis=1, keepdims=True)
    right = shares * allowed
    right /= right.sum(axis=1, keepdims=True) + np.float32(1e-9)
    errors = (shares - right) * (weights[:, None] / np.float32(len(inputs)))
    back = errors @ output.T
    back *= kept
    return [inputs.T @ back, back.sum(0), units.T @ errors, errors.sum(0)]
