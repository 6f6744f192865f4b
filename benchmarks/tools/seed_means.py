"""Means over seeds, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats  # type: ignore[import-untyped,unused-ignore]

Interval = tuple[float, float | None, float | None]
"""A mean and the bounds of its interval; None if there is only one value."""


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Returns the mean of at least one value with its Student's t 95 % interval.

    A bootstrap of so few values is too narrow: for normal values its 95 % interval covers .77 with three
    values, .83 with five, .91 with ten.
    """
    array = np.asarray(values, dtype=float)
    mean = round(float(array.mean()), 4)
    if len(array) < 2:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, round(float(array.mean()) - half, 4), round(float(array.mean()) + half, 4)


def format_interval(interval: Interval, digits: int = 2) -> str:
    """Formats an interval as `0.25 [0.20, 0.31]`, or `0.25` for a single value."""
    mean, low, high = interval
    if low is None or high is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
