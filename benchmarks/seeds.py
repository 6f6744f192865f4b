"""Means over seeds with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The mean of at least one value, and a 95 % percentile bootstrap interval of it."""
    array = np.asarray(values, dtype=float)
    means = np.random.default_rng(0).choice(array, (4000, len(array))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(array.mean()), 4), round(float(low), 4), round(float(high), 4)


def shown(interval: tuple[float, float, float]) -> str:
    """`0.25 [0.20, 0.31]`."""
    mean, low, high = interval
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
