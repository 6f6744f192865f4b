"""Interval of a difference of two means over prompts, valid for few of them: the delete-one-prompt jackknife.

A prompt's samples are not independent, so a prompt is left out with all of its samples. The standard error
gets a quantile of Student's t, whose degrees of freedom count how many prompts effectively contribute (a side
with five prompts has four, however many the other side has).

Rewards are bounded and often equal, and then the observed spread is too small: five prompts that were all
answered well do not show that every prompt is. So each side gets two pseudo-prompts, one with the lowest and
one with the highest value of all observations, as Agresti and Caffo (2000) add a success and a failure to
each of two samples. A pseudo-prompt weighs as much as one independent observation. `benchmarks/evaluation`
measures the coverage.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_COVERAGE = 0.95
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_MIN_SHARE, _UNKNOWN_SHARE = 0.25, 0.5
"""Weight of a pseudo-prompt relative to an average prompt of its side: its minimum, and its value where all
observations of the side are equal, so that the dependence of samples cannot be measured."""


def student_quantile(degrees: float) -> float:
    """Returns the 0.975 quantile of Student's t distribution, by Newton's method.

    Written out, and tested against scipy's, whose import takes longer than the commands that need it.

    Args:
        degrees: degrees of freedom, at least 1; need not be an integer.
    """
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2

    def density(x: Floats) -> Floats:
        return np.asarray(np.exp(log_scale - (degrees + 1) / 2 * np.log1p(x**2 / degrees)))

    quantile, step = 1.9, 1.0  # below every 0.975 quantile: from there, Newton's method never overshoots
    while step > 1e-10:
        area = quantile / 2 * float(_WEIGHTS @ density(quantile * (_NODES + 1) / 2))
        step = (_COVERAGE / 2 - area) / float(density(np.array(quantile)))
        quantile += step
    return quantile


def jackknife_interval(table: Floats, lowest: float, highest: float) -> tuple[float, float]:
    """Returns the 95% interval of the mean of the marked observations minus that of the others.

    Args:
        table: (P, 4) sums of the others and of the marked observations of each prompt, then their counts.
            Each side has at least two prompts.
        lowest, highest: smallest and largest value of all observations.
    """
    if lowest == highest and 0 <= lowest <= 1:
        lowest, highest = 0.0, 1.0  # equal shares or rewards; their scale is known
    adjusted = np.concatenate([table, _pseudo_prompts(table, lowest, highest)])
    variance = _jackknife_variance(adjusted)
    half = student_quantile(_degrees_of_freedom(table)) * math.sqrt(variance)
    observed, centre = (_difference(each.sum(axis=0)) for each in (table, adjusted))
    return min(centre - half, observed), max(centre + half, observed)


def _difference(sums: Floats) -> float:
    return float(sums[1] / sums[3] - sums[0] / sums[2])


def _jackknife_variance(table: Floats) -> float:
    remaining = table.sum(axis=0) - table  # (P, 4), without one prompt each
    without = remaining[:, 1] / remaining[:, 3] - remaining[:, 0] / remaining[:, 2]
    deviation = without - _difference(table.sum(axis=0))
    return float((len(table) - 1) / len(table) * (deviation**2).sum())


def _degrees_of_freedom(table: Floats) -> float:
    """Returns the effective number of prompts that contribute to the variance, minus one; at least 1."""
    counts = table[:, 2:]
    share = (counts / counts.sum(axis=0) ** 2).sum(axis=1)  # of the variance, if observations were alike
    return max(1.0, float(share.sum() ** 2 / (share**2).sum()) - 1)


def _pseudo_prompts(table: Floats, lowest: float, highest: float) -> Floats:
    """(4, 4) rows of `table`: one with the lowest and one with the highest value for each side."""
    rows = np.zeros((4, 4))
    for side in (0, 1):
        sums, counts = (column[table[:, 2 + side] > 0] for column in (table[:, side], table[:, 2 + side]))
        mean = sums.sum() / counts.sum()
        # Of observations between these bounds with this mean: a prompt's mean varies as much if its samples
        # are copies of each other, and less the more independent they are.
        largest = (mean - lowest) * (highest - mean)
        between = (sums / counts).var(ddof=1)
        share = between / largest if largest > 1e-12 else _UNKNOWN_SHARE
        weight = counts.mean() * min(max(share, _MIN_SHARE), 1.0)
        for row, value in enumerate((lowest, highest)):
            rows[2 * side + row, [side, 2 + side]] = weight * value, weight
    return rows
