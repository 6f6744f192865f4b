"""Means of metrics over batches of different sizes.

TRL appends one value per batch to a list, and logs the mean of the list. That is the mean over episodes or
tokens only if all batches are equally large. The last batch of an evaluation is not, nor are micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


class BatchMeans:
    """Records the number of items behind each value of a metric."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, list[float]], counts: Mapping[str, float]) -> None:
        """Records the number of items behind the latest value of each metric.

        Args:
            metrics: values of each batch, by metric.
            counts: metric -> number of items; metrics without values are ignored.
        """
        for name, count in counts.items():
            if metrics.get(name):
                self._counts.setdefault(name, []).append(count)

    def merge(self, metrics: dict[str, list[float]]) -> None:
        """Replaces the values of each metric with its mean over all items, and discards the counts.

        A metric with a value that has no count is left unchanged. Minima and maxima are not averaged.
        """
        for name, values in metrics.items():
            counts = self._counts.get(name, [])
            valid = [value for value in values if not math.isnan(value)]
            if len(valid) > 1 and (extreme := _extreme(name)) is not None:
                metrics[name] = [extreme(valid)]
            elif len(values) > 1 and len(counts) == len(values):
                pairs = [(v, n) for v, n in zip(values, counts, strict=True) if n and not math.isnan(v)]
                total = sum(count for _, count in pairs)
                if total:
                    metrics[name] = [math.fsum(value * count for value, count in pairs) / total]
        self._counts.clear()


def _extreme(name: str) -> Callable[[list[float]], float] | None:
    """Returns the function that merges a minimum or maximum; None for a mean."""
    words = name.rpartition("/")[2].split("_")
    if "min" in words:
        return min
    return max if "max" in words or "largest" in words else None
