"""The nearness of the rules of a large rulebook, from the texts that its shortlist names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rule_server.retrieval.search import nearness, text_index
from rule_server.retrieval.search.nearness import CategoryGroups, Nearness, RuleGroups
from rule_server.retrieval.search.text_index import TextIndex

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Vectors

RULES, DIMENSION, EVERYDAY = 400, 128, 10


@dataclass(frozen=True)
class Searches:
    """The same random rulebook, searched exhaustively and as a large one."""

    exhaustive: Nearness
    large: Nearness
    categories: CategoryGroups
    questions: Vectors


def unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def searches(seed: int) -> Searches:
    """Returns searches of random rules around the centre of their category, and questions near rules."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 30, RULES).tolist()
    names = [("en", f"category-{number}") for number in random.integers(0, 6, RULES)]
    rules = RuleGroups(sizes)
    categories = CategoryGroups(names, rules.sizes)
    centres = random.standard_normal((6, DIMENSION))[categories.of] + random.standard_normal(
        (RULES, DIMENSION)
    )
    texts = centres[rules.of] + random.standard_normal((rules.rows, DIMENSION))
    vectors = unit(np.concatenate([texts, random.standard_normal((EVERYDAY, DIMENSION))]))
    index = TextIndex.build(vectors, sizes)
    assert index.shortlist is not None
    flat = TextIndex(index.flat, None)
    questions = unit(centres[:24] + random.standard_normal((24, DIMENSION)))
    return Searches(
        Nearness(flat, rules, categories), Nearness(index, rules, categories), categories, questions
    )


def error_of_the_ten_best(found: Searches) -> float:
    """Returns the largest error of the nearness of the ten best rules of a question."""
    exact, ours = found.exhaustive.of(found.questions), found.large.of(found.questions)
    best = np.argsort(-exact, axis=1)[:, :10]
    return float(np.abs(np.take_along_axis(exact - ours, best, axis=1)).max())


@pytest.fixture(autouse=True)
def small_shortlists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "EXHAUSTIVE_TEXTS", 0)
    monkeypatch.setattr(text_index, "LIST_TEXTS", 100)
    monkeypatch.setattr(text_index, "SEARCHED_TEXTS", 2000)


@pytest.mark.parametrize("seed", range(5))
def test_a_nearness_is_the_same_to_the_last_bit_alone_and_in_any_batch(seed: int) -> None:
    found = searches(seed)
    for search in (found.large, found.exhaustive):
        alone = np.concatenate([search.of(question[None]) for question in found.questions])
        assert search.of(found.questions).tolist() == alone.tolist()
        assert search.of(found.questions[::-3]).tolist() == alone[::-3].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_rules_of_a_category_are_as_far_apart_as_in_an_exhaustive_search(seed: int) -> None:
    found = searches(seed)
    exact, ours = found.exhaustive.of(found.questions), found.large.of(found.questions)
    for expected, actual in zip(exact, ours, strict=True):
        best = np.argsort(-expected)[:10]
        for category in set(found.categories.of[best].tolist()):
            own = best[found.categories.of[best] == category]
            assert actual[own] - actual[own[0]] == pytest.approx(expected[own] - expected[own[0]], abs=1e-9)
    assert error_of_the_ten_best(found) < 0.01


def test_a_question_whose_lists_have_too_few_texts_searches_all_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_index, "SEARCHED_TEXTS", 1)
    monkeypatch.setattr(text_index, "SEARCHED_SHARE", 0.0)
    found = searches(0)
    assert error_of_the_ten_best(found) < 0.01


def test_rules_with_more_texts_than_are_read_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "READ_TEXTS", 0)
    found = searches(0)
    assert error_of_the_ten_best(found) < 0.01


@pytest.mark.parametrize("known", [True, False])
def test_a_language_that_the_encoder_does_not_know_is_searched_without_a_warning(known: bool) -> None:
    """Neither a question nor rules without a vector, as an English encoder gives in another language."""
    random = np.random.default_rng(0)
    sizes = [30] * RULES
    rules = RuleGroups(sizes)
    categories = CategoryGroups([("en", f"category-{at % 6}") for at in range(RULES)], rules.sizes)
    vectors = np.zeros((rules.rows + EVERYDAY, DIMENSION), np.float32)
    if known:
        vectors = unit(random.standard_normal(vectors.shape))
    found = Nearness(TextIndex.build(vectors, sizes), rules, categories)
    questions = np.zeros((2, DIMENSION), np.float32)
    questions[1] = unit(random.standard_normal((1, DIMENSION)))
    nearness = found.of(questions)
    assert np.isfinite(nearness).all()
    assert np.ptp(nearness[0]) < 0.001  # categories differ in size
    assert np.array_equal(nearness[1:], found.of(questions[1:]))
