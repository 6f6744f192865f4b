"""Differences of means over prompts, added at once or in batches."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics import PromptSums
from evaluation.metrics.intervals import MAX_RESAMPLED_PROMPTS


def observations(prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), 4)
    marked = draw.random(len(prompt)) < 0.4
    shared = draw.normal(size=prompts)[prompt]  # makes the samples of one prompt similar
    return prompt, shared + 0.3 * marked + draw.normal(size=len(prompt)), marked


@pytest.mark.parametrize("prompts", [40, MAX_RESAMPLED_PROMPTS + 500])
def test_batches_give_the_same_difference_as_all_observations_at_once(prompts: int) -> None:
    prompt, value, marked = observations(prompts)
    once, batches = PromptSums(), PromptSums()
    once.add(prompt, value, marked)
    for first in range(0, prompts, 10):
        batch = (prompt >= first) & (prompt < first + 10)
        batches.add(prompt[batch] - first, value[batch], marked[batch])
    assert once.difference() == batches.difference()


def test_the_limit_for_many_prompts_agrees_with_resampling() -> None:
    prompt, value, marked = observations(MAX_RESAMPLED_PROMPTS)
    few, more = PromptSums(), PromptSums()
    few.add(prompt, value, marked)
    more.add(prompt, value, marked)
    # One more prompt hardly changes the means, but the limit now gives the interval.
    more.add(np.array([0]), np.array([0.0]), np.array([False]))
    resampled, limit = few.difference(), more.difference()
    assert resampled is not None
    assert limit is not None
    assert limit.value == pytest.approx(resampled.value, abs=1e-3)
    assert (limit.low, limit.high) == (
        pytest.approx(resampled.low, abs=0.01),
        pytest.approx(resampled.high, abs=0.01),
    )
