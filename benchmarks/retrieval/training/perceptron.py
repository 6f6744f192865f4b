"""Trains the perceptrons of the relevance decision, and the parts that every training shares, in numpy alone.

The same data and numpy on one thread give the same weights, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rule_server.retrieval.relevance.model import INPUT_SCALE, Perceptron

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

BETA_1, BETA_2, EPSILON = 0.9, 0.98, 1e-8
NOISE_POOL = 3_000_000
"""Number of random numbers from which each batch slices its noise; drawing fresh ones takes most of the
time."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate grows, before it falls along a cosine."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the optimiser (AdamW). Chosen with whole sources left out: see the retrieval log."""

    units: int = 112
    """Hidden units of one member."""
    members: int = 2
    """Perceptrons that see the same batches. Their mean is one perceptron with as many times the units."""
    epochs: int = 16
    batch: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.4
    noise: float = 0.03
    """Standard deviation of the noise on each entry of a vector of length 1."""
    smoothing: float = 0.03
    """Distance of the labels from 0 and 1."""


def balanced_weights(groups: Sequence[str], labels: Floats) -> Floats:
    """Returns a weight for each row, with mean 1: groups by the square root of their size, classes
    equally."""
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
    random = np.random.default_rng(0)
    count, width = vectors.shape
    size, members = settings.batch, settings.members
    all_units = settings.units * members
    targets = (labels * (1 - 2 * settings.smoothing) + settings.smoothing).astype(np.float32)
    parameters: list[Floats] = [
        random.standard_normal((width, all_units), np.float32) / np.float32(np.sqrt(width)),
        np.zeros(all_units, np.float32),
        random.standard_normal(all_units, np.float32) / np.float32(np.sqrt(settings.units)),
        np.zeros(members, np.float32),
    ]
    optimiser = AdamW(parameters, settings, settings.epochs * (count // size))
    noise = NoisePool(random, settings)
    for rows in batches(random, count, settings):
        inputs = vectors[rows] * np.float32(INPUT_SCALE)
        inputs += noise.slice(inputs.shape)
        kept = kept_units(random, (size, all_units), settings)
        optimiser.step(_gradients(parameters, inputs, targets[rows], weights[rows], kept))
    hidden, hidden_bias, output, output_bias = parameters
    arrays = (hidden, hidden_bias, output / members, output_bias.mean(keepdims=True))
    return Perceptron(*map(half_precision, arrays))


def half_precision(array: NDArray[Any]) -> Floats:
    """Rounds weights to half precision, in which they are stored."""
    return array.astype(np.float16).astype(np.float32)


class NoisePool:
    """Random numbers that are added to the inputs of a batch."""

    def __init__(self, random: np.random.Generator, settings: TrainingSettings) -> None:
        self._random = random
        self._values = random.standard_normal(NOISE_POOL, np.float32)
        self._values *= np.float32(settings.noise * INPUT_SCALE)

    def slice(self, shape: tuple[int, ...]) -> Floats:
        """Returns a random part of the pool in a shape."""
        size = math.prod(shape)
        start = int(self._random.integers(0, NOISE_POOL - size))
        return self._values[start : start + size].reshape(shape)


def kept_units(random: np.random.Generator, shape: tuple[int, int], settings: TrainingSettings) -> Floats:
    """Returns a factor for each unit: 0 for those that are dropped."""
    kept = (random.random(shape, np.float32) > settings.dropout).astype(np.float32)
    kept /= np.float32(1 - settings.dropout)
    return kept


def batches(
    random: np.random.Generator, count: int, settings: TrainingSettings
) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each batch, in a new order in each epoch."""
    for _ in range(settings.epochs):
        order = random.permutation(count)
        for start in range(0, count - settings.batch + 1, settings.batch):
            yield order[start : start + settings.batch]


class AdamW:
    """The optimiser. Changes parameters in place."""

    def __init__(self, parameters: list[Floats], settings: TrainingSettings, steps: int) -> None:
        self._parameters, self._settings, self._steps, self._step = parameters, settings, steps, 0
        self._means = [np.zeros_like(value) for value in parameters]
        self._squares = [np.zeros_like(value) for value in parameters]

    def step(self, gradients: Sequence[Floats]) -> None:
        self._step += 1
        done = self._step / self._steps
        rate = self._settings.learning_rate * min(1.0, done / WARM_UP) * 0.5 * (1 + np.cos(np.pi * done))
        for at, gradient in enumerate(gradients):
            value, mean, square = self._parameters[at], self._means[at], self._squares[at]
            mean *= np.float32(BETA_1)
            mean += np.float32(1 - BETA_1) * gradient
            square *= np.float32(BETA_2)
            square += np.float32(1 - BETA_2) * gradient * gradient
            change = np.sqrt(square * np.float32(1 / (1 - BETA_2**self._step)))
            change += np.float32(EPSILON)
            np.divide(mean, change, out=change)
            change *= np.float32(rate / (1 - BETA_1**self._step))
            if at in (0, 2):  # biases are not decayed
                value *= np.float32(1 - rate * self._settings.weight_decay)
            value -= change


def _gradients(
    parameters: Sequence[Floats], inputs: Floats, targets: Floats, weights: Floats, kept: Floats
) -> list[Floats]:
    """Returns the gradients of the weighted cross entropy of one batch, summed over the members."""
    hidden, hidden_bias, output, output_bias = parameters
    size, members = len(inputs), len(output_bias)
    units = inputs @ hidden
    units += hidden_bias
    kept *= units > 0
    units *= kept
    logits = (units * output).reshape(size, members, -1).sum(2) + output_bias
    predicted = 1 / (1 + np.exp(-logits))
    errors = ((predicted - targets[:, None]) * (weights[:, None] / size)).astype(np.float32)
    back = np.repeat(errors, len(output) // members, axis=1)
    output_gradient = (back * units).sum(0)
    back *= output
    back *= kept
    return [inputs.T @ back, back.sum(0), output_gradient, errors.sum(0)]
