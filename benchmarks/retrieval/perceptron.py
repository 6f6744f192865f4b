"""Trains the perceptrons of the relevance decision, in numpy alone.

The same data and numpy on one thread give the same weights, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.relevance.model import INPUT_SCALE, Perceptron

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

BETA_1, BETA_2, EPSILON = 0.9, 0.98, 1e-8
WARM_UP = 0.1
"""Share of the steps in which the learning rate grows, before it falls along a cosine."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the optimiser (AdamW). Chosen with whole sources left out: see the retrieval log."""

    units: int = 96
    """Hidden units of one member."""
    members: int = 2
    """Perceptrons of different seeds. Their mean is one perceptron with as many times the units."""
    epochs: int = 16
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.4
    noise: float = 0.03
    """Standard deviation of the noise on each entry of a vector of length 1."""
    smoothing: float = 0.03
    """Labels are this much away from 0 and 1."""


def balanced_weights(groups: Sequence[str], labels: Floats) -> Floats:
    """Returns a weight for each row, with mean 1: a group weighs as the root of its size, classes equally."""
    names, index, counts = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    del names
    weights = counts[index] ** -0.5
    for label in (0, 1):
        own = labels == label
        weights[own] *= 0.5 / weights[own].sum()
    return (weights * len(weights)).astype(np.float32)


def train_perceptron(
    vectors: Floats, labels: Floats, weights: Floats, settings: TrainingSettings
) -> Perceptron:
    """Returns the mean of the members, rounded to half precision.

    Args:
        vectors: (n, d), of length 1 or less.
        labels: (n,), 1 where a rule applies.
        weights: (n,), of the rows in the loss.
    """
    members = [_train_member(vectors, labels, weights, settings, seed) for seed in range(settings.members)]
    hidden, hidden_bias, output, output_bias = zip(*members, strict=True)
    arrays = (
        np.concatenate(hidden, axis=1),
        np.concatenate(hidden_bias),
        np.concatenate(output) / settings.members,
        np.mean(output_bias, axis=0),
    )
    return Perceptron(*(array.astype(np.float16).astype(np.float32) for array in arrays))


def _train_member(
    vectors: Floats, labels: Floats, weights: Floats, settings: TrainingSettings, seed: int
) -> list[Floats]:
    random = np.random.default_rng(seed)
    count, width = vectors.shape
    size = settings.batch
    inputs = (vectors * INPUT_SCALE).astype(np.float32)
    targets = (labels * (1 - 2 * settings.smoothing) + settings.smoothing).astype(np.float32)
    parameters: list[Floats] = [
        (random.normal(size=(width, settings.units)) / np.sqrt(width)).astype(np.float32),
        np.zeros(settings.units, np.float32),
        (random.normal(size=settings.units) / np.sqrt(settings.units)).astype(np.float32),
        np.zeros(1, np.float32),
    ]
    means = [np.zeros_like(value) for value in parameters]
    squares = [np.zeros_like(value) for value in parameters]
    steps = settings.epochs * (count // size)
    step = 0
    for _ in range(settings.epochs):
        order = random.permutation(count)
        for start in range(0, count - size + 1, size):
            rows = order[start : start + size]
            noise = random.standard_normal((size, width), dtype=np.float32) * np.float32(
                settings.noise * INPUT_SCALE
            )
            kept = (random.random((size, settings.units)) > settings.dropout) / (1 - settings.dropout)
            gradients = _gradients(
                parameters, inputs[rows] + noise, targets[rows], weights[rows], kept.astype(np.float32)
            )
            step += 1
            rate = settings.learning_rate * min(1.0, step / (WARM_UP * steps))
            rate *= 0.5 * (1 + np.cos(np.pi * step / steps))
            for at, gradient in enumerate(gradients):
                value = parameters[at]
                means[at] = BETA_1 * means[at] + (1 - BETA_1) * gradient
                squares[at] = BETA_2 * squares[at] + (1 - BETA_2) * gradient**2
                change = means[at] / (1 - BETA_1**step)
                change = change / (np.sqrt(squares[at] / (1 - BETA_2**step)) + EPSILON)
                if at in (0, 2):  # biases are not decayed
                    change = change + settings.weight_decay * value
                value -= np.float32(rate) * change
    return parameters


def _gradients(
    parameters: Sequence[Floats], inputs: Floats, targets: Floats, weights: Floats, kept: Floats
) -> list[Floats]:
    """Returns the gradients of the weighted cross entropy of one batch."""
    hidden, hidden_bias, output, output_bias = parameters
    sums = inputs @ hidden + hidden_bias
    units = np.maximum(sums, 0) * kept
    predicted = 1 / (1 + np.exp(-(units @ output + output_bias)))
    errors = (predicted - targets) * weights / len(targets)
    back = np.outer(errors, output) * kept * (sums > 0)
    return [inputs.T @ back, back.sum(0), units.T @ errors, errors.sum(keepdims=True)]
