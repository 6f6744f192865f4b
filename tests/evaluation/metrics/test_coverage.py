"""Coverage of the 95% interval of a difference: with few prompts, it must not be narrower than it claims."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from benchmarks.evaluation.interval_coverage import SHAPES, coverage
from evaluation.metrics.jackknife import student_quantile


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("prompts", [5, 8, 12, 40])
def test_the_interval_of_a_difference_covers_the_truth_with_few_prompts(name: str, prompts: int) -> None:
    share, intervals, _ = coverage(SHAPES[name], prompts, runs=500, seed=prompts)
    if intervals < 100:
        assert prompts < 12  # too few prompts show a side: there is no interval
        return
    assert share >= 0.94


def test_without_any_difference_the_interval_says_how_little_equal_rewards_show() -> None:
    from evaluation.metrics.intervals import mean_difference

    def interval(prompts: int) -> tuple[float, float]:
        rows = [(f"p{i}", 1.0, sample % 2 == 0) for i in range(prompts) for sample in range(4)]
        difference = mean_difference(rows)
        assert difference is not None
        assert difference.value == difference.sign == 0
        assert difference.low is not None
        assert difference.high is not None
        return difference.low, difference.high

    few, many = interval(5), interval(40)
    assert few[0] < many[0] < 0 < many[1] < few[1]
    assert few[1] == pytest.approx(-few[0])


@pytest.mark.parametrize("degrees", [1, 1.5, 2, 3.7, 4, 9, 39.2, 1000])
def test_quantiles_of_students_t_agree_with_scipy(degrees: float) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-6)
    assert math.isfinite(student_quantile(1e9))
