"""The score of a rule: the log-odds that it applies to a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from rule_server.retrieval.encoders.paired import split_vectors
from rule_server.retrieval.relevance.model import RelevanceModel, relevance_model
from rule_server.retrieval.relevance.ranking import ranking_model
from rule_server.retrieval.relevance.reranker import Reranker
from rule_server.retrieval.search.nearness import CategoryGroups, Nearness, RuleGroups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.retrieval.relevance.model import Part as LearnedPart
    from rule_server.retrieval.relevance.ranking import RankingModel
    from rule_server.retrieval.search.text_index import TextIndex
    from rule_server.rulebook import Rule

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Complete = Callable[[Vectors, NDArray[np.int64], NDArray[np.int64]], Flags]
    """Adds the English part to those of some rows that are English, and the part of other languages to those
    of some rows that are in one. Returns which of all rows are English."""

# Parameters of the score, chosen on public evaluation sets: see docs/research/retrieval-log.md.
NEARNESS_SLOPE = 20.0
"""Log-odds per unit of nearness that a rule applies, for rules that the learned decision does not cover."""
NEARNESS_OFFSET, MULTILINGUAL_NEARNESS_OFFSET = 0.06, 0.02
"""Nearness at which the score is 0.5, in English and in other languages."""
NEARNESS_GATE = -2.0
"""Minimum log-odds by the multilingual encoder from which the English encoder also scores rules that the
learned decision does not cover."""
OWN_DISTANCE = 0.1
"""Nearness by which all rules that are not packaged ones must be behind the nearest packaged one, for the
first stage to be certain. It was certain for none of 361 questions about such rules."""
OWN_ADVANTAGE = 1.0
"""Log-odds added to an applicable rule that is not a packaged one, so that it ranks before them."""
MAX_OTHER_WINDOWS = 3
"""Windows of a question that the encoder of other languages reads at most, which bounds the time of a long
question: those with the highest log-odds by the first decision."""
Part = Literal["multilingual", "english"]
"""An encoder whose vectors an index has. A single encoder counts as the English one."""
PARTS: tuple[Part, Part] = ("multilingual", "english")


@dataclass(frozen=True)
class Scorer:
    """Scores the rule versions of one index: every rule, each followed by its translations. Immutable."""

    fingerprint: str
    dimension: int
    """Of the vector of a rule's text. That of a question may be longer."""
    by_part: Mapping[Part, Nearness]
    learned: Flags
    """By version: whether it is of a packaged rule, about which the learned parts decide."""
    model: RelevanceModel
    reranker: Reranker

    @classmethod
    def of(
        cls,
        versions: Sequence[Rule],
        texts: Sequence[Sequence[str]],
        indexes: Mapping[Part, TextIndex],
        fingerprint: str,
    ) -> Scorer:
        """Creates the scorer of an index.

        Args:
            texts: by rule version.
            indexes: one of all texts for each encoder.
            fingerprint: identifier of the encoder.
        """
        # Texts are grouped by language, for rules and categories alike, since a question is in one language.
        rules = RuleGroups([len(own) for own in texts])
        categories = CategoryGroups([(rule.lang, rule.category) for rule in versions], rules.sizes)
        by_part = {name: Nearness(index, rules, categories) for name, index in indexes.items()}
        model = relevance_model()
        learned = np.array([model.covers(own) for own in texts], bool)
        reranker = Reranker.of(ranking_model(), versions, learned)
        dimension = sum(index.dimension for index in indexes.values())
        return cls(fingerprint, dimension, by_part, learned, model, reranker)

    def ranked_by(self, model: RankingModel, relevance: RelevanceModel | None = None) -> Scorer:
        """Returns a scorer with another learned order, and optionally another decision."""
        reranker = replace(self.reranker, model=model)
        return replace(self, model=relevance or self.model, reranker=reranker)

    def nearness(self, vectors: Vectors, part: Part) -> Floats:
        """Returns the nearness of each vector to each rule version by one encoder, (n, versions)."""
        multilingual, english, _ = self.split(vectors)
        ours = english if part == "english" else multilingual
        assert ours is not None
        return self.by_part[part].of(ours)

    def certainty(self, vectors: Vectors) -> Floats:
        """Returns how certain the multilingual encoder is which rule comes first, for each vector, (n,)."""
        multilingual, _, _ = self.split(vectors)
        assert multilingual is not None
        return self.reranker.multilingual(multilingual, self.by_part["multilingual"].of(multilingual))[1]

    def log_odds(self, windows: Vectors, sizes: Sequence[int], complete: Complete | None = None) -> Floats:
        """Returns the log-odds that each rule version applies, (windows, versions).

        Minus infinity: no encoder knows the language.

        Args:
            windows: (windows, dimension), those of one question after another.
            sizes: number of windows of each question.
            complete: adds the parts that windows need; None: they are there already.
        """
        multilingual, english, other = self.split(windows)
        if multilingual is None:
            logits = NEARNESS_SLOPE * (self.by_part["english"].of(english) - NEARNESS_OFFSET)
        else:
            nearness = self.by_part["multilingual"].of(multilingual)
            logits = self._multilingual_logits(multilingual, nearness)
            first = np.where(self.learned, logits, -np.inf).max(axis=1)
            certain, certain_logits = self._certain(multilingual, nearness, first)
            passed = ((first >= self.model.gate) | self._has_near_rule(logits)) & ~certain
            passed_other = _highest(np.where(first >= self.model.other_gate, first, -np.inf), sizes)
            if complete is None:
                is_english = np.asarray(english.any(axis=1))
            else:
                is_english = complete(windows, np.flatnonzero(passed), np.flatnonzero(passed_other))
            logits[certain & is_english] = certain_logits[is_english[certain]]
            full = english.any(axis=1) & passed
            if full.any():
                logits[full] = self._english_logits(
                    multilingual[full], english[full], nearness[full], logits[full]
                )
            full = other.any(axis=1) & passed_other
            if full.any():
                logits[full] = self._other_logits(multilingual[full], other[full], nearness[full])
            # What the first decision says about a window that should be read further does not count.
            unread = (first >= self.model.gate) & ~passed_other & ~is_english
            logits[np.ix_(unread, self.learned)] = np.minimum(
                logits[np.ix_(unread, self.learned)], self.model.other_gate
            )
            logits[~multilingual.any(axis=1)] = -np.inf
        return logits

    def split(self, questions: Vectors) -> tuple[Vectors | None, Vectors, Vectors]:
        """See `RuleIndex.split`."""
        multilingual, english = split_vectors(questions[:, : self.dimension], self.fingerprint)
        return multilingual, english, questions[:, self.dimension :]

    def _has_near_rule(self, logits: Floats) -> Flags:
        """Returns which questions may be near a rule that is not a packaged one, from the first logits."""
        return np.asarray(np.where(self.learned, -np.inf, logits).max(axis=1) >= NEARNESS_GATE)

    def _certain(self, vectors: Vectors, nearness: Floats, first: Floats) -> tuple[Flags, Floats]:
        """Returns which questions the English encoder need not read, if they are English, and their log-odds.

        The multilingual encoder is certain that a packaged rule applies, and which.

        Args:
            vectors: multilingual vectors, (questions, d).
            nearness: nearness by them, (questions, versions).
            first: log-odds by the first decision, (questions,).
        """
        limit = self.reranker.model.certain
        own = np.where(self.learned, -np.inf, nearness).max(axis=1)
        certain = (first >= limit.log_odds) & (own <= self.reranker.best(nearness)[:, 0] - OWN_DISTANCE)
        if not self.fingerprint.startswith(self.model.english):  # the operator has chosen another encoder
            certain[:] = False
        if not certain.any():
            return certain, np.empty((0, nearness.shape[1]))
        behind, likely = self.reranker.multilingual(vectors[certain], nearness[certain])
        likely_enough = likely >= limit.probability
        certain[certain] = likely_enough
        relevance = first[certain][:, None]
        return certain, self._by_nearness("multilingual", relevance, nearness[certain], behind[likely_enough])

    def _multilingual_logits(self, vectors: Vectors, nearness: Floats) -> Floats:
        """Returns the log-odds that each rule version applies, (questions, versions)."""
        relevance = self._relevance("multilingual", vectors, nearness)
        return self._by_nearness("multilingual", relevance, nearness, self.reranker.behind(nearness))

    def _other_logits(self, multilingual: Vectors, other: Vectors, nearness: Floats) -> Floats:
        """Returns the log-odds for questions in other languages."""
        relevance = self._relevance("other", np.hstack([multilingual, other]), nearness)
        return self._by_nearness("other", relevance, nearness, self.reranker.other(other, nearness))

    def _relevance(self, part: LearnedPart, inputs: Vectors, nearness: Floats) -> Floats:
        """Returns the log-odds that a packaged rule applies, (questions, 1).

        Args:
            inputs: vectors that the learned decision `part` reads.
            nearness: nearness by the part's space, (questions, versions).
        """
        scale, learned = self.model.scales[part], getattr(self.model, part)
        best = self.reranker.best(nearness)
        return np.asarray(learned.logits(inputs)[:, None] + scale.nearness * best - scale.offset)

    def _by_nearness(self, part: LearnedPart, relevance: Floats, nearness: Floats, behind: Floats) -> Floats:
        """Returns the log-odds that each rule version applies, for nearness by the multilingual part.

        Args:
            relevance: log-odds that a packaged rule applies, (questions, 1).
            behind: log-odds by which packaged rules are behind the first of them, (questions, versions).
        """
        own = NEARNESS_SLOPE * (nearness - MULTILINGUAL_NEARNESS_OFFSET)
        if not self.learned.any():
            return own
        distance = self.model.scales[part].nearness * (nearness - self.reranker.best(nearness))
        return self._join(relevance + behind, relevance + distance, own)

    def _english_logits(
        self, multilingual: Vectors, english: Vectors, multilingual_nearness: Floats, logits: Floats
    ) -> Floats:
        """Returns the log-odds from the multilingual and the English part of vectors.

        Args:
            multilingual_nearness: nearness by the multilingual part, (questions, versions).
            logits: log-odds from the multilingual part, (questions, versions).
        """
        nearness = self.by_part["english"].of(english)
        own = np.where(self.by_part["english"].known, NEARNESS_SLOPE * (nearness - NEARNESS_OFFSET), logits)
        if not self.learned.any():
            return own
        distance = self.model.scales["both"].nearness * (nearness - self.reranker.best(nearness))
        if not self.fingerprint.startswith(self.model.english):  # `both` was learned with another encoder
            relevance = self.reranker.best(logits)
            return self._join(relevance + distance, relevance + distance, own)
        vectors = np.hstack([multilingual, english])
        relevance = self._relevance("both", vectors, nearness)
        behind = self.reranker.english(vectors, nearness, multilingual_nearness)
        return self._join(relevance + behind, relevance + distance, own)

    def _join(self, learned: Floats, added: Floats, own: Floats) -> Floats:
        """Returns the learned log-odds of packaged rules and those by nearness of other rules.

        Args:
            learned: log-odds of packaged rules in their learned order, (questions, versions).
            added: log-odds of other rules by their nearness as if they were packaged ones.
            own: log-odds by nearness alone.
        """
        # Another rule that applies is ranked among the packaged ones by its nearness, with an advantage.
        ranked = np.where(own >= 0, np.maximum(own, added + OWN_ADVANTAGE), own)
        return np.asarray(np.where(self.learned, learned, ranked))


def _highest(values: Floats, sizes: Sequence[int]) -> Flags:
    """Returns which windows are read: the `MAX_OTHER_WINDOWS` of each question with the highest values.

    Those with minus infinity are never read.
    """
    chosen = np.isfinite(values)
    start = 0
    for size in sizes:
        own = slice(start, start + size)
        if chosen[own].sum() > MAX_OTHER_WINDOWS:
            chosen[start + np.argsort(-values[own], kind="stable")[MAX_OTHER_WINDOWS:]] = False
        start += size
    return chosen
