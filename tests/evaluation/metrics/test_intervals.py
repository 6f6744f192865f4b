"""Differences of means over prompts, given at once or in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics import PromptSums
from evaluation.metrics.intervals import MOST_RESAMPLED


def observations(prompts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), 4)
    marked = draw.random(len(prompt)) < 0.4
    shared = draw.normal(size=prompts)[prompt]  # what makes the samples of one prompt alike
    return prompt, shared + 0.3 * marked + draw.normal(size=len(prompt)), marked


@pytest.mark.parametrize("prompts", [40, MOST_RESAMPLED + 500])
def test_pieces_give_what_the_whole_gives(prompts: int) -> None:
    prompt, value, marked = observations(prompts)
    whole, pieces = PromptSums(), PromptSums()
    whole.add(prompt, value, marked)
    for first in range(0, prompts, 10):
        here = (prompt >= first) & (prompt < first + 10)
        pieces.add(prompt[here] - first, value[here], marked[here])
    assert whole.difference() == pieces.difference()


def test_the_limit_for_many_prompts_agrees_with_resampling_them() -> None:
    prompt, value, marked = observations(MOST_RESAMPLED)
    few, more = PromptSums(), PromptSums()
    few.add(prompt, value, marked)
    more.add(prompt, value, marked)
    # One prompt more, of no weight to speak of, and the interval is the limit's.
    more.add(np.array([0]), np.array([0.0]), np.array([False]))
    resampled, limit = few.difference(), more.difference()
    assert resampled is not None
    assert limit is not None
    assert limit.value == pytest.approx(resampled.value, abs=1e-3)
    assert (limit.low, limit.high) == (
        pytest.approx(resampled.low, abs=0.01),
        pytest.approx(resampled.high, abs=0.01),
    )
