"""Orders the packaged rules by what was learned about them, without deciding whether one applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.relevance.ranking import LearnedOrder, RankingModel
    from rule_server.rulebook import Rule

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Reranker:
    """The learned order for the rule versions of one index: every rule, each followed by its translations."""

    model: RankingModel
    columns: NDArray[np.int64]
    """By rule version: its column in the model's gains, or -1."""
    learned: Flags
    """Versions of packaged rules."""

    @classmethod
    def of(cls, model: RankingModel, versions: Sequence[Rule], learned: Flags) -> Reranker:
        """Creates the order of an index.

        Args:
            learned: whether each rule version belongs to a packaged rule, (versions,).
        """
        columns = np.array([model.column(rule.id, rule.category) for rule in versions], np.int64)
        return cls(model, columns, learned)

    def best(self, values: Floats) -> Floats:
        """Returns the highest value of a packaged rule for each question, (questions, 1)."""
        return np.asarray(np.where(self.learned, values, -np.inf).max(axis=1, keepdims=True))

    def multilingual(self, vectors: NDArray[np.float32], nearness: Floats) -> tuple[Floats, Floats]:
        """Returns `behind` for English questions, from their multilingual part alone, and its certainty.

        That is the probability of the first rule, (questions,), or 0 if another one is nearer.

        Args:
            vectors: the multilingual part, (questions, dimension).
            nearness: nearness by it, (questions, versions).
        """
        learned = self.model.learned(vectors, "multilingual")
        order = np.where(self.learned, nearness + self._gains(learned), -np.inf)
        first, nearest = order.argmax(axis=1), np.where(self.learned, nearness, -np.inf).argmax(axis=1)
        known = np.hstack([learned.probabilities, np.zeros((len(vectors), 1))])
        column = np.minimum(self.columns[first], known.shape[1] - 1)  # of a rule that the model does not know
        return self.behind(order), np.where(first == nearest, known[np.arange(len(first)), column], 0)

    def english(self, vectors: NDArray[np.float32], nearness: Floats, multilingual: Floats) -> Floats:
        """Returns `behind` for English questions, from both of their parts.

        Args:
            vectors: the multilingual and the English part side by side, (questions, dimension).
            nearness: nearness by the English part, (questions, versions).
            multilingual: nearness by the multilingual part.
        """
        together = nearness + self.model.multilingual_share * multilingual
        return self.behind(together + self._gains(self.model.learned(vectors, "both")))

    def other(self, vectors: NDArray[np.float32], nearness: Floats) -> Floats:
        """Returns `behind` for questions in other languages.

        Args:
            vectors: vectors by the encoder of other languages.
            nearness: nearness by the multilingual part, (questions, versions).
        """
        return self.behind(nearness + self._gains(self.model.learned(vectors, "other")))

    def behind(self, values: Floats) -> Floats:
        """Returns the log-odds, 0 or less, by which each packaged rule is behind the first of them.

        The first is 0 in any case, so that the order does not change whether a rule applies.
        """
        return np.asarray(self.model.slope * (values - self.best(values)))

    def _gains(self, learned: LearnedOrder) -> Floats:
        """Returns the nearness that each rule version gains, (questions, versions)."""
        return np.where(self.columns >= 0, learned.gains[:, self.columns], 0)
