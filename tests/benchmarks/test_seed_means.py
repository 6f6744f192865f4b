"""Confidence intervals over few seeds."""

import numpy as np

from benchmarks.tools.seed_means import format_interval, mean_interval


def test_the_interval_of_five_seeds_covers_the_mean_in_95_percent_of_samples() -> None:
    samples = np.random.default_rng(0).normal(1.0, 2.0, (2000, 5))
    covered = [low <= 1.0 <= high for _, low, high in map(mean_interval, samples) if low is not None and high]
    assert len(covered) > 1990
    assert 0.935 < np.mean(covered) < 0.965


def test_one_seed_has_no_interval() -> None:
    assert mean_interval([0.25]) == (0.25, None, None)
    assert format_interval(mean_interval([0.25])) == "0.25"
    assert format_interval(mean_interval([1.0, 2.0, 3.0]), 3) == "2.000 [-0.484, 4.484]"
