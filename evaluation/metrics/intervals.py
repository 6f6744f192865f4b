"""A difference of two means with its interval, where the samples of one prompt are not independent.

The interval is a bootstrap over *prompts*. It is deterministic: fixed seed, and prompts in an order
that their sums decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RESAMPLES = 2000
MOST_RESAMPLED = 2000  # prompts; with more, resampling costs gigabytes and its limit says the same
FEWEST_PROMPTS = 5  # with fewer on one side, resampling says little of how that side varies, and seems sure
SEED = 0
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Difference:
    """A difference of two means with a 95% bootstrap interval, null where too few prompts give one."""

    value: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies wholly above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def mean_difference(
    rows: Sequence[tuple[str, float, bool]], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference | None:
    """Mean of the marked rows minus mean of the others, resampling whole prompts.

    Args:
        rows: (prompt id, value, marked) of each observation, in any order.

    Returns:
        None where one side is empty; an interval of nulls where one has fewer than `FEWEST_PROMPTS` prompts.
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
    return sums.difference(resamples=resamples, seed=seed)


class PromptSums:
    """What `mean_difference` needs of any number of observations, which may come in pieces.

    Of up to `MOST_RESAMPLED` prompts their sums are kept. Of more, only the sums' moments are, whatever their
    number: the interval is then the bootstrap's limit, the linearised variance over prompts with a normal
    quantile.
    """

    def __init__(self) -> None:
        import numpy as np

        self._tables: list[Any] = []
        self._prompts = 0
        self._total, self._moments = np.zeros(4), np.zeros((4, 4))
        self._on_side = np.zeros(2)

    def add(self, prompt: Any, value: Any, marked: Any) -> None:
        """Add N observations of prompts that no earlier piece held.

        Args:
            prompt: (N,) integers from 0, equal for the observations of one prompt.
            value: (N,) numbers.
            marked: (N,) true for the side whose mean comes first.
        """
        import numpy as np

        count = int(prompt.max(initial=-1)) + 1
        table = np.zeros((count, 4))  # sums of the others and of the marked, then how many they are
        for side, here in enumerate((~marked, marked)):
            table[:, side] = np.bincount(prompt[here], value[here], minlength=count)
            table[:, 2 + side] = np.bincount(prompt[here], minlength=count)
        table = table[table[:, 2:].any(axis=1)]
        self._prompts += len(table)
        self._total += table.sum(axis=0)
        self._moments += table.T @ table
        self._on_side += (table[:, 2:] > 0).sum(axis=0)
        self._tables = [*self._tables, table] if self._prompts <= MOST_RESAMPLED else []

    def difference(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> Difference | None:
        """See `mean_difference`."""
        import numpy as np

        counts = self._total[2:]
        if not counts.all():
            return None
        means = self._total[:2] / counts
        gap = float(means[1] - means[0])
        value = rounded(gap)
        if self._on_side.min() < FEWEST_PROMPTS:
            return Difference(value, None, None)
        if not self._tables:
            # By how much a prompt with these four sums moves the difference, to first order.
            influence = np.concatenate([[-1, 1] / counts, [1, -1] * means / counts])
            variance = self._prompts / (self._prompts - 1) * float(influence @ self._moments @ influence)
            half = Z95 * math.sqrt(max(variance, 0.0))
            return Difference(value, rounded(gap - half), rounded(gap + half))
        table = np.concatenate(self._tables)
        table = table[np.lexsort(table.T)]  # an order of its own: pieces may come in any
        draws = np.random.default_rng(seed).multinomial(
            len(table), [1 / len(table)] * len(table), size=resamples
        )
        drawn = draws @ table
        whole = drawn[:, 2:].all(axis=1)
        drawn_means = drawn[whole, :2] / drawn[whole, 2:]
        low, high = np.quantile(drawn_means[:, 1] - drawn_means[:, 0], [0.025, 0.975])
        return Difference(value, rounded(float(low)), rounded(float(high)))


def rounded(value: float) -> float:
    return round(value, 6) + 0.0  # plus zero: no "-0.0"


@dataclass(frozen=True)
class Rate:
    """A share with its 95% Wilson interval; all three null when there was nothing to count."""

    hits: int
    n: int
    share: float | None
    low: float | None
    high: float | None


def wilson(hits: int, n: int) -> Rate:
    """The 95% Wilson score interval of `hits` in `n`."""
    if n == 0:
        return Rate(0, 0, None, None, None)
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if hits == 0 else rounded(centre - half)
    high = 1.0 if hits == n else rounded(centre + half)
    return Rate(hits, n, rounded(share), low, high)
