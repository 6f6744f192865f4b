"""Intervals of rates, and of differences of means where the samples of one prompt are not independent.

The interval of a difference leaves out one *prompt* at a time (see `jackknife`). It is deterministic: the
prompts are sorted by their sums, so their order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_RESAMPLED_PROMPTS = 2000  # with more, the sums of every prompt are not kept; the limit is the same
MIN_PROMPTS = 5  # with fewer on one side, an interval would be too wide to be useful
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Difference:
    """A difference of two means and its 95% interval; None for the bounds with too few prompts."""

    value: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies completely above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def mean_difference(rows: Sequence[tuple[str, float, bool]]) -> Difference | None:
    """Returns the mean of the marked rows minus the mean of the others; its interval is over prompts.

    Args:
        rows: (prompt id, value, marked) per observation, in any order.

    Returns:
        None if one side is empty. The bounds are None if one side has fewer than `MIN_PROMPTS` prompts.
    """
    import numpy as np

    prompts = sorted({prompt for prompt, _, _ in rows})
    position = {prompt: index for index, prompt in enumerate(prompts)}
    ordered = sorted(rows)
    sums = PromptSums()
    sums.add(
        np.array([position[prompt] for prompt, _, _ in ordered], dtype=np.intp),
        np.array([value for _, value, _ in ordered], dtype=float),
        np.array([marked for _, _, marked in ordered], dtype=bool),
    )
    return sums.difference()


class PromptSums:
    """Computes `mean_difference` in constant memory, over observations that arrive in batches.

    Stores the sums of up to `MAX_RESAMPLED_PROMPTS` prompts. With more prompts it stores only the moments of
    these sums, and the interval is the limit of the jackknife: the linearised variance over prompts with a
    normal quantile.
    """

    def __init__(self) -> None:
        import numpy as np

        self._tables: list[Any] = []
        self._prompts = 0
        self._total, self._moments = np.zeros(4), np.zeros((4, 4))
        self._prompts_on_side = np.zeros(2)
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, prompt: Any, value: Any, marked: Any) -> None:
        """Adds N observations; their prompts must not occur in another batch.

        Args:
            prompt: (N,) integers from 0, equal for the observations of one prompt.
            value: (N,) numbers.
            marked: (N,) booleans; the mean of the marked ones is the minuend.
        """
        import numpy as np

        if not len(value):
            return
        self._lowest = min(self._lowest, float(value.min()))
        self._highest = max(self._highest, float(value.max()))
        count = int(prompt.max()) + 1
        table = np.zeros((count, 4))  # sums of the others and of the marked, then their counts
        for side, mask in enumerate((~marked, marked)):
            table[:, side] = np.bincount(prompt[mask], value[mask], minlength=count)
            table[:, 2 + side] = np.bincount(prompt[mask], minlength=count)
        table = table[table[:, 2:].any(axis=1)]
        self._prompts += len(table)
        self._total += table.sum(axis=0)
        self._moments += table.T @ table
        self._prompts_on_side += (table[:, 2:] > 0).sum(axis=0)
        self._tables = [*self._tables, table] if self._prompts <= MAX_RESAMPLED_PROMPTS else []

    def difference(self) -> Difference | None:
        """Returns the difference of all observations so far; see `mean_difference`."""
        import numpy as np

        from evaluation.metrics.jackknife import jackknife_interval

        counts = self._total[2:]
        if not counts.all():
            return None
        means = self._total[:2] / counts
        gap = float(means[1] - means[0])
        value = round_figure(gap)
        if self._prompts_on_side.min() < MIN_PROMPTS:
            return Difference(value, None, None)
        if not self._tables:
            # First-order effect of a prompt with these four sums on the difference.
            influence = np.concatenate([[-1, 1] / counts, [1, -1] * means / counts])
            variance = self._prompts / (self._prompts - 1) * float(influence @ self._moments @ influence)
            half = Z95 * math.sqrt(max(variance, 0.0))
            return Difference(value, round_figure(gap - half), round_figure(gap + half))
        table = np.concatenate(self._tables)
        table = table[np.lexsort(table.T)]  # batches may arrive in any order
        low, high = jackknife_interval(table, self._lowest, self._highest)
        return Difference(value, round_figure(low), round_figure(high))


def round_figure(value: float) -> float:
    """Rounds to 6 digits."""
    return round(value, 6) + 0.0  # plus zero: no "-0.0"


@dataclass(frozen=True)
class Rate:
    """A share and its 95% Wilson interval; all three are None if `n` is 0."""

    hits: int
    n: int
    share: float | None
    low: float | None
    high: float | None


def wilson(hits: int, n: int) -> Rate:
    """Returns the 95% Wilson score interval of `hits` in `n` trials.

    Written out, and tested against scipy's: importing `scipy.stats` takes longer than all other work of a
    command that prints a table of rates.
    """
    if n == 0:
        return Rate(0, 0, None, None, None)
    share, shrink = hits / n, 1 / (1 + Z95**2 / n)
    centre = shrink * (share + Z95**2 / (2 * n))
    half = shrink * Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Rate(hits, n, round_figure(share), round_figure(low), round_figure(high))
