"""Dual ascent on a floor for a rate: the multiplier of the advantages on harmful prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ifpo import updated_multiplier

SHARES = st.floats(0, 1)
STEPS = st.floats(1e-3, 10)


@given(st.lists(SHARES, max_size=30), SHARES, STEPS, st.floats(1, 50))
def test_the_multiplier_stays_between_one_and_its_bound(rates, floor, step, largest):
    value = 1.0
    for rate in rates:
        value = updated_multiplier(value, rate, floor=floor, step=step, largest=largest)
        assert 1 <= value <= largest


@given(st.floats(1, 10), SHARES, SHARES, STEPS)
def test_it_rises_below_the_floor_and_sinks_above_it_down_to_one(value, rate, floor, step):
    after = updated_multiplier(value, rate, floor=floor, step=step)
    assert after >= value if rate <= floor else after <= value
    if rate == floor:
        assert after == value


@given(st.floats(1, 10), SHARES, SHARES, SHARES)
def test_a_lower_rate_never_gives_a_lower_multiplier(value, first, second, floor):
    low, high = sorted((first, second))
    assert updated_multiplier(value, low, floor=floor) >= updated_multiplier(value, high, floor=floor)


def test_several_runs_are_updated_at_once():
    after = updated_multiplier(np.array([1.0, 3.0, 9.9]), np.array([1.0, 0.55, 0.0]), floor=0.95, step=0.5)
    assert after.tolist() == pytest.approx([1.0, 3.2, 10.0])
