"""The choice of rules, on handmade vectors for which every score can be computed by hand."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from rule_server import ArtefactError, RuleIndex, load_rulebook
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.background import background_requests
from rule_server.retrieval.index import index_entries
from tests.fakes.rules.rulebooks import rule, write_rulebook

BACKGROUND = len(background_requests())


@pytest.fixture
def index(tmp_path: Path) -> RuleIndex:
    """Five rules of two categories, of which c and e answer, at known cosines to the question (1, 0).

    Every text of a rule has the same vector; background requests are orthogonal to the question.
    """
    cosines = {"one.a": 0.9, "one.b": 0.8, "one.c": 0.7, "two.d": 0.6, "two.e": 0.2}
    answers = {"one.c", "two.e"}
    return index_at_cosines(
        tmp_path,
        {id: [cosine] * 7 for id, cosine in cosines.items()},
        *(rule(id, stance="answer" if id in answers else "decline") for id in cosines),
    )


def index_at_cosines(
    folder: Path, cosines: dict[str, list[float]], *rules: tuple[str, str], background: float = 0
) -> RuleIndex:
    """Returns an index whose texts have these cosines to the question, in the order of each rule's texts."""
    book = load_rulebook(write_rulebook(folder, *rules))
    remaining = {id: iter(own) for id, own in cosines.items()}
    vectors = [at_cosine(next(remaining[id]) if id else background) for id, _ in index_entries(book)]
    return RuleIndex(book, "by-hand", np.array(vectors, np.float32))


def at_cosine(cosine: float) -> list[float]:
    return [cosine, (1 - cosine**2) ** 0.5]


def soft_mean(*cosines: float) -> float:
    return 0.1 * math.log(sum(math.exp(cosine / 0.1) for cosine in cosines) / len(cosines))


def score(nearness: float) -> float:
    """Returns the score of a rule that nothing was learned for."""
    return 1 / (1 + math.exp(-20 * (nearness - 0.06)))


THRESHOLD = score(0.3)
QUESTION: NDArray[np.float32] = np.array([[1, 0]], np.float32)


def ids(index: RuleIndex, **how: object) -> list[str]:
    chosen = {"top_k": 3, "threshold": THRESHOLD, **how}
    return [hit.rule.id for hit in index.search(QUESTION, **chosen)]  # type: ignore[arg-type]


def test_each_category_gets_a_rule_before_any_gets_a_second(index: RuleIndex) -> None:
    assert ids(index, top_k=2) == [
        "one.a",
        "two.d",
        "one.c",
    ]  # one.c is appended, since neither is an answer rule
    assert ids(index, top_k=3) == ["one.a", "two.d", "one.b", "one.c"]
    assert ids(index, top_k=5) == ["one.a", "two.d", "one.b", "two.e", "one.c"]


def test_the_answer_rule_of_the_top_category_is_appended_unless_present(index: RuleIndex) -> None:
    assert ids(index, top_k=1) == ["one.a", "one.c"]
    assert ids(index, top_k=1, categories=["two"]) == ["two.d", "two.e"]
    assert ids(index, top_k=10) == ["one.a", "two.d", "one.b", "two.e", "one.c"]


def test_below_the_threshold_nothing_applies(index: RuleIndex) -> None:
    assert ids(index, threshold=1) == []
    assert ids(index, categories=[]) == []


def test_rules_close_below_the_threshold_are_returned_with_one_that_reaches_it(index: RuleIndex) -> None:
    # A category of three rules has a small advantage over one of two.
    larger, smaller = (0.03 * math.log(rules / 2.5) for rules in (3, 2))
    best = 0.75 * (soft_mean(0.9, 0.8, 0.7) + larger) + 0.25 * 0.9
    second = 0.75 * (soft_mean(0.6, 0.2) + smaller) + 0.25 * 0.6
    assert [hit.score for hit in index.search(QUESTION, top_k=2, threshold=THRESHOLD)][:2] == [
        pytest.approx(score(best), abs=1e-4),
        pytest.approx(score(second), abs=1e-4),
    ]
    # two.e is the answer rule of its category, regardless of its score.
    assert ids(index, threshold=score(second), categories=["two"], top_k=1) == ["two.d", "two.e"]


def test_the_margin_below_the_threshold_is_a_fifth(tmp_path: Path) -> None:
    cosines = {"one.a": [0.1] * 7, "two.b": [0.05] * 7}
    index = index_at_cosines(tmp_path, cosines, rule("one.a", stance="answer"), rule("two.b"))
    best, second = score(0.1), score(0.05)
    assert ids(index, threshold=best + 0.001) == []
    assert ids(index, threshold=second + 0.199) == ["one.a", "two.b"]
    assert ids(index, threshold=second + 0.201) == ["one.a"]


def test_a_category_far_below_the_best_rule_waits_for_the_second_rule_of_the_best_category(
    tmp_path: Path,
) -> None:
    cosines = {"one.a": [0.12] * 7, "one.b": [0.11] * 7, "two.c": [0.02] * 7}
    index = index_at_cosines(tmp_path, cosines, rule("one.a", stance="answer"), rule("one.b"), rule("two.c"))
    assert ids(index, threshold=0.3) == ["one.a", "one.b", "two.c"]


def test_a_score_combines_the_soft_means_of_the_rule_and_its_category(tmp_path: Path) -> None:
    first, second = [0.9, 0.1, 0.5, 0.2, 0.1, 0.0, 0.3], [0.4] * 7
    index = index_at_cosines(
        tmp_path, {"one.a": first, "one.b": second}, rule("one.a", stance="answer"), rule("one.b")
    )
    [hit, other] = index.search(QUESTION, top_k=2, threshold=-2)
    assert hit.rule.id == "one.a"
    category = 0.75 * soft_mean(*first, *second)
    assert hit.score == pytest.approx(score(category + 0.25 * soft_mean(*first)), abs=1e-4)
    assert other.score == pytest.approx(score(category + 0.25 * 0.4), abs=1e-4)


def test_a_question_equally_near_to_background_requests_finds_nothing(tmp_path: Path) -> None:
    cosines = {"one.a": [0.5] * 7}
    index = index_at_cosines(tmp_path, cosines, rule("one.a"), background=0.5)
    assert index.scores(QUESTION) == pytest.approx([score(0)], abs=1e-6)
    assert ids(index, threshold=0.5) == []
    assert ids(index_at_cosines(tmp_path, cosines, rule("one.a")), threshold=0.5) == ["one.a"]


def test_a_translation_does_not_lower_the_score_of_the_original(tmp_path: Path) -> None:
    alone = index_at_cosines(tmp_path / "a", {"one.a": [0.5] * 7}, rule("one.a"))
    both = index_at_cosines(
        tmp_path / "b", {"one.a": [*[0.5] * 7, *[0.0] * 7]}, rule("one.a"), rule("one.a", lang="de")
    )
    assert both.scores(QUESTION) == pytest.approx(alone.scores(QUESTION))
    turned = index_at_cosines(
        tmp_path / "c", {"one.a": [*[0.0] * 7, *[0.5] * 7]}, rule("one.a"), rule("one.a", lang="de")
    )
    assert turned.scores(QUESTION) == pytest.approx(alone.scores(QUESTION))


def test_each_window_of_a_long_question_may_find_a_rule(index: RuleIndex) -> None:
    parts = np.array([[-1, 0], [1, 0]], np.float32)
    assert [hit.rule.id for hit in index.search(parts, top_k=1, threshold=THRESHOLD)] == ["one.a", "one.c"]


def test_an_edit_embeds_only_changed_texts(tmp_path: Path) -> None:
    class Counting:
        fingerprint = "counting"
        encoded: ClassVar[list[str]] = []

        def encode(self, texts: list[str]) -> NDArray[np.float32]:
            self.encoded[:] = texts
            return np.array([at_cosine(0.5) for _ in texts], np.float32)

    encoder = Counting()
    folder = write_rulebook(tmp_path, rule("one.a"), rule("one.b"))
    first = RuleIndex.build(load_rulebook(folder), encoder)
    assert len(encoder.encoded) == len(first.vectors) == 14 + BACKGROUND
    write_rulebook(folder, rule("one.b", applies_when="Something else."))
    second = RuleIndex.build(load_rulebook(folder), encoder, first.vectors_by_text())
    assert encoder.encoded == ["B. Something else."]
    assert len(second.vectors) == 14 + BACKGROUND


def test_vectors_of_another_rulebook_are_refused(index: RuleIndex) -> None:
    with pytest.raises(
        ArtefactError, match=f"{35 + BACKGROUND} texts but {34 + BACKGROUND} vectors: build the index again"
    ):
        RuleIndex(index.rulebook, "by-hand", index.vectors[1:])


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "one"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    rename = Path.rename

    def fail(path: Path, new: Path) -> Path:
        if path.name.startswith(".new-"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", fail)
    with (
        pytest.raises(ArtefactError, match="No space left"),
        Artefact(tmp_path).new_folder(target, replace=True) as folder,
    ):
        (folder / "manifest.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (target / "manifest.json").read_text() == "old"
