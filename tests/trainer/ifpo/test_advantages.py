"""Mathematical properties of IFPO for arbitrary rewards, modes and groups."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.ifpo import ifpo_advantages, inverse_frequency_weights, split_advantages

REWARDS = st.one_of(st.sampled_from([0.0, 1.0, -0.2, 0.8]), st.floats(-100, 100, width=32))
SCALES = st.sampled_from(["group", "batch", "none"])
BASELINES = st.sampled_from(["balanced", "group"])
FREQUENCIES = st.sampled_from(["group", "batch"])


@st.composite
def batches(draw, modes=3, smallest=1):
    """Rewards, modes and labels of groups of different sizes, in any order."""
    sizes = draw(st.lists(st.integers(smallest, 9), min_size=1, max_size=5))
    groups = draw(st.permutations([index for index, size in enumerate(sizes) for _ in range(size)]))
    rewards = draw(st.lists(REWARDS, min_size=len(groups), max_size=len(groups)))
    labels = draw(st.lists(st.integers(0, modes - 1), min_size=len(groups), max_size=len(groups)))
    return np.array(rewards), np.array(labels), np.array(groups)


def grpo(rewards, groups, scale):
    """Computes GRPO's advantages as TRL 1.16 does, group by group."""
    rewards = torch.as_tensor(rewards)
    advantages = torch.zeros_like(rewards)
    for group in set(groups.tolist()):
        chosen = torch.as_tensor(groups == group)
        if chosen.sum() < 2:
            continue
        std = {"group": rewards[chosen].std(), "batch": rewards.std(), "none": None}[scale]
        centred = rewards[chosen] - rewards[chosen].mean()
        advantages[chosen] = centred if std is None else centred / (std + 1e-4)
    return advantages.numpy()


@given(batches(), SCALES, BASELINES)
def test_with_alpha_zero_the_advantages_equal_those_of_grpo(batch, scale, baseline):
    rewards, modes, groups = batch
    advantages = ifpo_advantages(rewards, modes, groups, alpha=0, scale_rewards=scale, baseline=baseline)
    np.testing.assert_allclose(advantages, grpo(rewards, groups, scale), rtol=1e-9, atol=1e-9)


@given(batches(), SCALES, BASELINES, st.randoms(use_true_random=False))
def test_permuting_the_episodes_only_permutes_their_advantages(batch, scale, baseline, random):
    order = list(range(len(batch[0])))
    random.shuffle(order)
    plain = ifpo_advantages(*batch, scale_rewards=scale, baseline=baseline)
    permuted = ifpo_advantages(*(part[order] for part in batch), scale_rewards=scale, baseline=baseline)
    np.testing.assert_allclose(permuted, plain[order], rtol=1e-9, atol=1e-9)


@given(batches(), st.sampled_from(["group", "none"]), BASELINES, st.floats(-50, 50))
def test_adding_a_constant_to_a_groups_rewards_changes_nothing(batch, scale, baseline, constant):
    rewards, modes, groups = batch
    rewards = np.round(rewards, 3)  # floats cannot represent differences far below the constant
    moved = np.where(groups == groups[0], rewards + round(constant, 3), rewards)
    before = ifpo_advantages(rewards, modes, groups, scale_rewards=scale, baseline=baseline)
    after = ifpo_advantages(moved, modes, groups, scale_rewards=scale, baseline=baseline)
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-9)


@given(batches(), st.sampled_from(["group", "batch"]), BASELINES, st.floats(0.01, 100))
def test_with_scaling_a_positive_factor_changes_nothing(batch, scale, baseline, factor):
    rewards, modes, groups = batch
    rewards = np.round(rewards, 3)
    before = ifpo_advantages(rewards, modes, groups, scale_rewards=scale, baseline=baseline, eps=0)
    after = ifpo_advantages(factor * rewards, modes, groups, scale_rewards=scale, baseline=baseline, eps=0)
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


@given(batches(), SCALES, st.floats(0, 3), st.floats(0.5, 10), FREQUENCIES)
def test_a_balanced_baseline_makes_the_advantages_of_a_group_sum_to_zero(
    batch, scale, alpha, w_max, frequency
):
    _, _, groups = batch
    advantages = ifpo_advantages(*batch, alpha=alpha, w_max=w_max, scale_rewards=scale, frequency=frequency)
    np.testing.assert_allclose(np.bincount(groups, advantages), 0, atol=1e-9 * (1 + np.abs(advantages).sum()))


@given(st.integers(1, 30), st.integers(1, 30))
def test_both_modes_carry_half_of_a_groups_weight_however_rare_one_is(consulting, direct):
    modes = np.array(["consult"] * consulting + ["direct"] * direct)
    weights = inverse_frequency_weights(modes, np.zeros(len(modes)), alpha=1, w_max=math.inf)
    assert weights[modes == "consult"].sum() == pytest.approx(len(modes) / 2)
    assert weights[modes == "direct"].sum() == pytest.approx(len(modes) / 2)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=5))
def test_all_of_several_modes_carry_the_same_share_of_the_weight(sizes):
    consultations = np.repeat(np.arange(len(sizes)), sizes)  # one mode per number of consultations
    weights = inverse_frequency_weights(consultations, np.zeros(len(consultations)), w_max=math.inf)
    np.testing.assert_allclose(np.bincount(consultations, weights), len(consultations) / len(sizes))


def test_with_batch_frequencies_a_mode_rare_in_the_batch_weighs_more_in_each_group():
    modes = np.array(["consult"] * 7 + ["direct"] + ["consult"] * 4 + ["direct"] * 4)
    groups = np.array([0] * 8 + [1] * 8)
    weights = inverse_frequency_weights(modes, groups, frequency="batch", w_max=math.inf)
    # 11 of 16 consult, 5 answer directly: the ratio of weights is 11 / 5 in both groups, as scaled in each.
    np.testing.assert_allclose(weights[7] / weights[0], 11 / 5)
    np.testing.assert_allclose(weights[15] / weights[8], 11 / 5)
    np.testing.assert_allclose(np.bincount(groups, weights), [8, 8])


@given(batches(), st.floats(0, 3), st.floats(0.5, 10))
def test_in_a_batch_of_one_group_the_scope_of_the_frequency_makes_no_difference(batch, alpha, w_max):
    _, modes, groups = batch
    first = groups == groups[0]
    by_group, by_batch = (
        inverse_frequency_weights(modes[first], groups[first], alpha=alpha, w_max=w_max, frequency=frequency)
        for frequency in ("group", "batch")
    )
    np.testing.assert_array_equal(by_group, by_batch)


@given(batches(modes=1), SCALES, BASELINES)
def test_a_group_of_one_mode_gets_the_advantages_of_grpo(batch, scale, baseline):
    rewards, modes, groups = batch
    advantages = ifpo_advantages(rewards, modes, groups, scale_rewards=scale, baseline=baseline)
    np.testing.assert_allclose(advantages, grpo(rewards, groups, scale), rtol=1e-9, atol=1e-9)


@given(batches(), REWARDS, SCALES, BASELINES, st.sampled_from([0.0, 1e-4]))
def test_equal_rewards_give_exactly_zero(batch, reward, scale, baseline, eps):
    _, modes, groups = batch
    rewards = np.full(len(groups), reward)
    assert not ifpo_advantages(rewards, modes, groups, scale_rewards=scale, baseline=baseline, eps=eps).any()


@given(batches(), SCALES, BASELINES, st.floats(0, 1000), st.sampled_from([np.float32, np.float64]))
def test_advantages_are_always_finite(batch, scale, baseline, alpha, dtype):
    rewards, modes, groups = batch
    advantages = ifpo_advantages(
        rewards.astype(dtype), modes, groups, alpha=alpha, scale_rewards=scale, baseline=baseline
    )
    assert advantages.dtype == dtype
    assert np.isfinite(advantages).all()


@given(st.tuples(REWARDS, REWARDS), st.tuples(st.booleans(), st.booleans()), SCALES, BASELINES)
def test_a_group_of_two_is_finite_in_float32(rewards, modes, scale, baseline):
    advantages = ifpo_advantages(
        torch.tensor(rewards, dtype=torch.float32),
        torch.tensor(modes),
        torch.zeros(2, dtype=torch.long),
        scale_rewards=scale,
        baseline=baseline,
    )
    assert advantages.dtype == torch.float32
    assert torch.isfinite(advantages).all()


@given(batches(), st.floats(0, 50), st.floats(0.25, 8))
def test_no_weight_exceeds_the_bound_times_the_normaliser(batch, alpha, w_max):
    _, modes, groups = batch
    weights = inverse_frequency_weights(modes, groups, alpha=alpha, w_max=w_max)
    for group in set(groups.tolist()):
        advantages = weights[groups == group]
        chosen = modes[groups == group].tolist()
        shares = [chosen.count(mode) / len(chosen) for mode in chosen]
        raw = [min((1 / (len(set(chosen)) * share)) ** alpha, w_max) for share in shares]
        assert advantages.sum() == pytest.approx(len(chosen))
        assert advantages.max() <= w_max * len(chosen) / sum(raw) * (1 + 1e-9)


def expected_update(size, p, consult_reward, direct_reward, **settings):
    """Returns the expected policy gradient on the logit of consulting over all 2^G mode patterns."""
    total = 0.0
    for pattern in itertools.product([0, 1], repeat=size):
        modes = np.array(pattern)
        rewards = np.where(modes == 1, consult_reward, direct_reward)
        advantages = ifpo_advantages(rewards, modes, np.zeros(size), scale_rewards="none", **settings)
        probability = math.prod(p if mode else 1 - p for mode in pattern)
        total += probability * float(np.mean(advantages * (modes - p)))
    return total


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("p", [0.03, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(("consult_reward", "direct_reward"), [(0.95, 0.55), (0.8, 0.92)])
def test_the_expected_update_equals_its_closed_form(size, p, consult_reward, direct_reward):
    gap = consult_reward - direct_reward
    plain = expected_update(size, p, consult_reward, direct_reward, alpha=0)
    assert plain == pytest.approx((size - 1) / size * p * (1 - p) * gap, abs=1e-9)
    rebalanced = expected_update(size, p, consult_reward, direct_reward, alpha=1, w_max=math.inf)
    assert rebalanced == pytest.approx(gap / 4 * (1 - p**size - (1 - p) ** size), abs=1e-9)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-5, 5).filter(lambda gain: abs(gain) > 0.01))
def test_with_scaling_the_update_between_modes_exceeds_that_of_grpo_by_a_known_factor(
    consulting, direct, gain
):
    size = consulting + direct
    modes = np.array([1] * consulting + [0] * direct)
    rewards = gain * modes
    groups = np.zeros(size, dtype=int)
    push = {
        alpha: ifpo_advantages(rewards, modes, groups, alpha=alpha, w_max=np.inf, eps=0.0)[modes == 1].sum()
        for alpha in (0.0, 1.0)
    }
    assert push[1.0] / push[0.0] == pytest.approx(size / (2 * math.sqrt(consulting * direct)))


@given(batches(), SCALES, BASELINES, FREQUENCIES)
def test_split_credit_gives_the_decisions_of_a_mode_the_same_sum_as_whole_credit(
    batch, scale, baseline, frequency
):
    _, modes, groups = batch
    settings = {"scale_rewards": scale, "baseline": baseline, "frequency": frequency}
    whole = ifpo_advantages(*batch, **settings)
    decision, rest = split_advantages(*batch, **settings)
    cell = groups * 3 + modes
    size = np.abs(whole).sum() + np.abs(rest).sum() + 1
    np.testing.assert_allclose(np.bincount(cell, decision), np.bincount(cell, whole), atol=1e-9 * size)
    np.testing.assert_allclose(np.bincount(cell, rest), 0, atol=1e-9 * size)


@given(batches(), SCALES)
def test_split_credit_of_grpo_adds_up_to_its_advantages(batch, scale):
    decision, rest = split_advantages(*batch, alpha=0, scale_rewards=scale)
    np.testing.assert_allclose(decision + rest, grpo(batch[0], batch[2], scale), rtol=1e-9, atol=1e-9)


@given(batches(), REWARDS, REWARDS, SCALES, BASELINES)
def test_tokens_after_the_decision_carry_nothing_if_their_mode_has_one_reward(
    batch, consulting, direct, scale, baseline
):
    _, modes, groups = batch
    rewards = np.where(modes == 0, consulting, direct)
    _, rest = split_advantages(rewards, modes, groups, scale_rewards=scale, baseline=baseline)
    np.testing.assert_allclose(rest, 0, atol=1e-9)


def test_split_credit_of_a_group_computed_by_hand():
    # Consulting earns 1, 0 and 1 and 0 (mean 1/2), answering directly 1: mu = (1/2 + 1) / 2 = 3/4.
    rewards, modes = [1.0, 0.0, 1.0, 0.0, 1.0], [1, 1, 1, 1, 0]
    decision, rest = split_advantages(rewards, modes, [0] * 5, scale_rewards="none", w_max=math.inf)
    np.testing.assert_allclose(decision, [5 / 8 * -0.25] * 4 + [5 / 2 * 0.25])
    np.testing.assert_allclose(rest, [0.5, -0.5, 0.5, -0.5, 0.0])


@given(batches(), SCALES, BASELINES)
def test_tensors_and_arrays_get_the_same_advantages(batch, scale, baseline):
    arrays = ifpo_advantages(*batch, scale_rewards=scale, baseline=baseline)
    tensors = ifpo_advantages(
        *(torch.as_tensor(part) for part in batch), scale_rewards=scale, baseline=baseline
    )
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_array_equal(tensors.numpy(), arrays)


def test_true_and_false_mean_group_and_none():
    batch = ([1.0, 0.0, 0.5], ["consult", "consult", "direct"], ["a", "a", "a"])
    for plain, named in [(True, "group"), (False, "none")]:
        np.testing.assert_array_equal(
            ifpo_advantages(*batch, scale_rewards=plain), ifpo_advantages(*batch, scale_rewards=named)
        )


def test_an_episode_alone_in_its_group_has_no_advantage():
    assert ifpo_advantages([1.0, 0.0, 3.0], [0, 1, 0], ["a", "a", "b"], scale_rewards="batch")[2] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [1.0, math.nan]}, "rewards\\[1\\] is nan"),
        ({"rewards": ["good", "bad"]}, "rewards must be numbers"),
        ({"rewards": [1.0]}, "there are 1 rewards, 2 modes, 2 groups"),
        ({"rewards": [[1.0, 0.0]]}, "one dimension"),
        ({"baseline": "mean"}, "'balanced' or 'group'"),
        ({"scale_rewards": "std"}, "'group', 'batch' or 'none'"),
        ({"alpha": -1}, "alpha is -1"),
        ({"w_max": 0}, "w_max is 0"),
        ({"eps": math.nan}, "eps is nan"),
        ({"frequency": "prompt"}, "'group' or 'batch'"),
    ],
)
def test_an_invalid_argument_is_refused_by_name(change, message):
    arguments = {"rewards": [1.0, 0.0], "modes": [0, 1], "groups": [0, 0]} | change
    for advantages in (ifpo_advantages, split_advantages):
        with pytest.raises(ValueError, match=message):
            advantages(**arguments)


def test_arrays_do_not_need_torch():
    code = "import sys; from trainer.ifpo import ifpo_advantages as a; a([1, 0], [1, 0], [0, 0]); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_no_episodes_have_no_advantages(alpha: float, scale: str) -> None:
    none = ifpo_advantages([], [], [], alpha=alpha, scale_rewards=scale)
    assert none.shape == (0,)
    assert inverse_frequency_weights([], [], alpha=alpha).shape == (0,)
