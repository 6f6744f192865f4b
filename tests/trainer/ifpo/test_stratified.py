"""Stratified groups, and the cost per consultation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.ifpo import decision_ratios, ifpo_advantages, with_consultation_cost

CHANCES = st.floats(0, 1)


@st.composite
def stratified(draw):
    """Probability, mode, forced flag and group of episodes; every group has a free one."""
    episodes = []
    for group in range(draw(st.integers(1, 4))):
        consult = draw(CHANCES)
        for forced in [False, *draw(st.lists(st.booleans(), max_size=7))]:
            mode = draw(st.sampled_from(["consult", "direct"]))
            episodes.append((consult if mode == "consult" else 1 - consult, mode, forced, group))
    episodes = draw(st.permutations(episodes))
    return tuple(np.array(column) for column in zip(*episodes, strict=True))


@given(stratified())
def test_a_ratio_lies_between_zero_and_the_group_size_over_its_free_episodes(batch):
    _, _, forced, groups = batch
    ratios = decision_ratios(*batch)
    for group in set(groups.tolist()):
        here = groups == group
        assert (ratios[here] >= 0).all()
        assert (ratios[here] <= here.sum() / (~forced[here]).sum() * (1 + 1e-12)).all()


@given(stratified())
def test_without_forced_episodes_every_ratio_is_one(batch):
    probability, modes, forced, groups = batch
    ratios = decision_ratios(probability, modes, np.zeros_like(forced), groups)
    np.testing.assert_array_equal(ratios, 1)


@given(stratified())
def test_tensors_and_arrays_get_the_same_ratios(batch):
    probability, modes, forced, groups = batch
    tensors = decision_ratios(
        torch.as_tensor(probability), modes == "consult", torch.as_tensor(forced), torch.as_tensor(groups)
    )
    np.testing.assert_array_equal(tensors.numpy(), decision_ratios(*batch))
    assert decision_ratios(probability.astype(np.float32), modes, forced, groups).dtype == np.float32


def test_the_ratios_of_a_group_computed_by_hand():
    # 4 free, 2 forced to consult, 2 forced to answer directly: q = 0.5 * 0.9 + 0.25 and 0.5 * 0.1 + 0.25.
    modes = ["consult"] * 6 + ["direct"] * 2
    forced = [False] * 4 + [True] * 4
    ratios = decision_ratios([0.9] * 6 + [0.1] * 2, modes, forced, [0] * 8)
    np.testing.assert_allclose(ratios, [0.9 / 0.7] * 6 + [0.1 / 0.3] * 2)


def test_an_impossible_mode_does_not_divide_by_zero():
    np.testing.assert_allclose(decision_ratios([1.0, 0.0], [0, 1], [True, False], [0, 0]), [2 / 2, 2 / 1])
    np.testing.assert_allclose(decision_ratios([1.0, 0.0], [0, 1], [True, True], [0, 0]), [2, 0])


@pytest.mark.parametrize(("free", "consult", "direct"), [(4, 2, 2), (2, 1, 1), (1, 3, 2), (6, 1, 1)])
@pytest.mark.parametrize("p", [0.001, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("gap", [0.4, -0.12])
def test_the_expected_update_of_a_stratified_group_equals_its_closed_form(free, consult, direct, p, gap):
    size = free + consult + direct
    forced = np.array([False] * free + [True] * (consult + direct))
    total = 0.0
    for pattern in itertools.product([1, 0], repeat=free):
        modes = np.array([*pattern, *[1] * consult, *[0] * direct])
        rewards = 0.5 + gap * modes
        advantages = ifpo_advantages(
            rewards, modes, np.zeros(size), alpha=1, w_max=math.inf, scale_rewards="none"
        )
        ratios = decision_ratios(np.where(modes == 1, p, 1 - p), modes, forced, np.zeros(size))
        probability = math.prod(p if mode else 1 - p for mode in pattern)
        total += probability * float(np.mean(ratios * advantages * (modes - p)))
    consulting, answering = (free * p + consult) / size, (free * (1 - p) + direct) / size
    assert total == pytest.approx(gap / 4 * p * (1 - p) / (consulting * answering), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": [0.5, 1.5]}, "outside 0 to 1"),
        ({"probability": [0.5, math.nan]}, "probability\\[1\\] is nan"),
        ({"forced": [2, 0]}, "true or false"),
        ({"groups": [0]}, "2 probability, 2 modes, 2 forced, 1 groups"),
    ],
)
def test_invalid_arguments_of_a_stratified_group_are_refused(change, message):
    arguments = {"probability": [0.5, 0.5], "modes": [0, 1], "forced": [True, False], "groups": [0, 0]}
    with pytest.raises(ValueError, match=message):
        decision_ratios(**(arguments | change))


def test_a_conditional_cost_is_charged_only_in_groups_whose_direct_episodes_earned_as_much():
    rewards = [1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    consultations = [1, 2, 0, 1, 0, 1, 1, 0, 0]
    groups = ["as good"] * 3 + ["worse"] * 2 + ["none direct"] * 2 + ["none consulting"] * 2
    paid = with_consultation_cost(rewards, consultations, 0.1, groups=groups, where="direct_as_good")
    np.testing.assert_allclose(paid, [0.9, -0.2, 0.5, *rewards[3:]])


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 2), st.integers(0, 3)), max_size=24),
    st.floats(-3, 3),
)
def test_a_conditional_cost_is_that_of_every_group_or_none(episodes, shift):
    rewards, counts, groups = (np.array([each[i] for each in episodes]) for i in range(3))
    paid = with_consultation_cost(rewards, counts, 0.1, groups=groups, where="direct_as_good")
    always = with_consultation_cost(rewards, counts, 0.1)
    for group in set(groups.tolist()):
        here = groups == group
        direct, consulting = here & (counts == 0), here & (counts > 0)
        charged = direct.any() and consulting.any()
        charged = charged and rewards[direct].mean() >= rewards[consulting].mean() - 1e-12
        np.testing.assert_array_equal(paid[here], (always if charged else rewards)[here])
    shifted = with_consultation_cost(rewards + shift, counts, 0.1, groups=groups, where="direct_as_good")
    np.testing.assert_allclose(shifted - shift, paid, atol=1e-9)


def test_a_conditional_cost_needs_groups_and_a_known_condition():
    with pytest.raises(ValueError, match="pass groups"):
        with_consultation_cost([1.0], [1], 0.1, where="direct_as_good")
    with pytest.raises(ValueError, match="where is 'never'"):
        with_consultation_cost([1.0], [1], 0.1, where="never")


def test_the_cost_is_subtracted_per_consultation():
    rewards = with_consultation_cost([1.0, 1.0, 0.0], [2, 0, 1], 0.1)
    np.testing.assert_allclose(rewards, [0.8, 1.0, -0.1])
    tensor = with_consultation_cost(torch.tensor([1.0, 0.5]), torch.tensor([True, False]), 0.25)
    assert tensor.tolist() == [0.75, 0.5]
    assert tensor.dtype == torch.float32
    with pytest.raises(ValueError, match="cost is -1"):
        with_consultation_cost([1.0], [1], -1)
