"""The two-context bandit: registered outcomes of methods that are compared there."""

from __future__ import annotations

import pytest

from benchmarks.learning.bandit import METHODS, train

SEEDS, UPDATES, LAST = 50, 400, 100


def mean_harmful_rate(method: str, start: float) -> float:
    """Returns the consult rate in the harmful context: mean over seeds and the last updates, with Adam."""
    path = train(METHODS[method], "adam", start, SEEDS, UPDATES)
    return float(path[-LAST:, :, 0].mean())


@pytest.mark.parametrize("start", [0.9, 0.97])
def test_a_cost_only_where_direct_is_as_good_keeps_more_needed_consultations(start: float) -> None:
    partly = mean_harmful_rate("GRPO, consultation costs .1 where direct is as good", start)
    assert mean_harmful_rate("GRPO, consultation costs .1", start) + 0.005 < partly


@pytest.mark.parametrize("start", [0.9, 0.97])
def test_the_multiplier_holds_a_floor_below_which_the_method_falls_without_it(start: float) -> None:
    assert mean_harmful_rate("GRPO, consultation costs .1", start) < 0.93
    held = mean_harmful_rate("GRPO, consultation costs .1, floor .95", start)
    assert held == pytest.approx(0.95, abs=0.02)
