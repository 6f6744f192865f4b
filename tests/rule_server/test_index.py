"""How the nearest rules are chosen, on vectors made by hand: every score can be worked out on paper."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from rule_server import ArtefactError, RuleIndex, load_rulebook
from rule_server.index import entries
from tests.fakes.rulebooks import rule, write_rulebook

THRESHOLD = 0.3


@pytest.fixture
def index(tmp_path: Path) -> RuleIndex:
    """Five rules of two categories, of which c and e answer, at known cosines to the question (1, 0).

    Every text of a rule has the same vector, so that the rule's score is that cosine.
    """
    cosines = {"one.a": 0.9, "one.b": 0.8, "one.c": 0.7, "two.d": 0.6, "two.e": 0.2}
    answers = {"one.c", "two.e"}
    book = load_rulebook(
        write_rulebook(
            tmp_path, *(rule(id, stance="answer" if id in answers else "decline") for id in cosines)
        )
    )
    vectors = np.array([at_cosine(cosines[id]) for id, _ in entries(book)], np.float32)
    return RuleIndex(book, "by-hand", vectors)


def at_cosine(cosine: float) -> list[float]:
    return [cosine, (1 - cosine**2) ** 0.5]


QUESTION: NDArray[np.float32] = np.array([[1, 0]], np.float32)


def ids(index: RuleIndex, **how: object) -> list[str]:
    chosen = {"top_k": 3, "threshold": THRESHOLD, **how}
    return [hit.rule.id for hit in index.search(QUESTION, **chosen)]  # type: ignore[arg-type]


def test_every_category_speaks_once_before_one_speaks_twice(index: RuleIndex) -> None:
    assert ids(index, top_k=2) == ["one.a", "two.d", "one.c"]  # c: appended, since none of the two answers
    assert ids(index, top_k=4) == ["one.a", "two.d", "one.b", "one.c"]


def test_the_answer_rule_of_the_top_category_is_appended_unless_it_is_there(index: RuleIndex) -> None:
    assert ids(index, top_k=1) == ["one.a", "one.c"]
    assert ids(index, top_k=1, categories=["two"]) == ["two.d", "two.e"]  # though e is below the threshold
    assert ids(index, top_k=10) == ["one.a", "two.d", "one.b", "one.c"]


def test_below_the_threshold_nothing_applies(index: RuleIndex) -> None:
    assert ids(index, threshold=0.91) == []
    assert ids(index, categories=[]) == []


def test_a_score_is_the_mean_of_the_two_nearest_texts(tmp_path: Path) -> None:
    book = load_rulebook(write_rulebook(tmp_path, rule("one.a", stance="answer")))
    cosines = [0.9, 0.1, 0.5, 0.2, 0.1, 0.0]
    index = RuleIndex(book, "by-hand", np.array([at_cosine(c) for c in cosines], np.float32))
    [hit] = index.search(QUESTION, top_k=1, threshold=THRESHOLD)
    assert hit.score == pytest.approx(0.7, abs=1e-4)


def test_each_part_of_a_long_question_may_find_a_rule(index: RuleIndex) -> None:
    parts = np.array([[-1, 0], [1, 0]], np.float32)
    assert [hit.rule.id for hit in index.search(parts, top_k=1, threshold=THRESHOLD)] == ["one.a", "one.c"]


def test_an_edit_embeds_only_what_changed(tmp_path: Path) -> None:
    class Counting:
        fingerprint = "counting"
        asked: ClassVar[list[str]] = []

        def encode(self, texts: list[str]) -> NDArray[np.float32]:
            self.asked[:] = texts
            return np.array([at_cosine(0.5) for _ in texts], np.float32)

    encoder = Counting()
    folder = write_rulebook(tmp_path, rule("one.a"), rule("one.b"))
    first = RuleIndex.build(load_rulebook(folder), encoder)
    assert len(encoder.asked) == 12
    write_rulebook(folder, rule("one.b", applies_when="Something else."))
    second = RuleIndex.build(load_rulebook(folder), encoder, first.vectors_by_text())
    assert encoder.asked == ["B. Something else."]
    assert len(second.vectors) == 12


def test_vectors_of_another_rulebook_are_refused(index: RuleIndex) -> None:
    with pytest.raises(ArtefactError, match="30 texts but 29 vectors: build the index again"):
        RuleIndex(index.rulebook, "by-hand", index.vectors[1:])
