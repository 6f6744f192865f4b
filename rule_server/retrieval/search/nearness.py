"""Nearness of each rule to a question: soft means of the similarities of its texts.

The nearness of a rule is the soft mean over its texts and over those of its category, minus that over
everyday requests. Texts are grouped by language, since a question is in one language.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.search.text_index import MeanVectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.retrieval.search.text_index import TextIndex

    Floats = NDArray[np.float64]

# Parameters of the score, chosen on public evaluation sets; nearby values do almost as well. The experiments
# are in docs/research/retrieval-log.md.
TEMPERATURE = 0.1
"""Temperature of the log-mean-exp over the texts of a rule or category: the nearest texts dominate."""
BACKGROUND_TEMPERATURE = 0.06
"""Temperature for everyday requests, which have less in common."""
CATEGORY_SHARE = 0.75
"""Weight of the category in a score. The rest is the weight of the rule itself."""
SIZE_SHARE = 0.3
"""Advantage of a category with many texts. 0: none, its texts are averaged. 1: its texts are summed."""
VARIANCE = 0.01
"""Variance of a question's similarities to texts, per unit of the texts' mean squared distance from
their mean vector. Measured on the packaged rules: see `estimate_unreturned`."""
MAX_SCORE_ERROR = 0.11
"""Measured, not proven: the largest error of a score if a quarter of the packaged rules' texts is returned.
The mean error is below 0.01."""


class RuleGroups:
    """Adjacent texts that belong to one rule in one language."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.array(sizes, np.float64)
        ends = np.cumsum([0, *sizes])
        self.rows = int(ends[-1])
        """Number of texts of all rules."""
        self._starts = ends[:-1]
        self.slices = [slice(*pair) for pair in pairwise(ends.tolist())]
        self._of = np.repeat(np.arange(len(sizes)), sizes)

    def sums(self, values: Floats) -> Floats:
        """Sums the columns of each group: (questions, texts) -> (questions, groups)."""
        return np.asarray(np.add.reduceat(values, self._starts, axis=1))

    def sums_at(self, rows: NDArray[np.int64], values: Floats | None = None) -> Floats:
        """Sums values of some texts by group, or counts them: (questions, some) -> (questions, groups)."""
        groups = len(self.sizes)
        cells = self._of[rows] + groups * np.arange(len(rows))[:, None]
        weights = None if values is None else values.ravel()
        counted = np.bincount(cells.ravel(), weights, groups * len(rows))
        return counted.reshape(len(rows), groups).astype(np.float64)


class CategoryGroups:
    """Rule groups of the same language and category, in any position."""

    def __init__(self, names: Sequence[tuple[str, str]], sizes: Floats) -> None:
        unique = sorted(set(names))
        places = {name: at for at, name in enumerate(unique)}
        self.of = np.array([places[name] for name in names])
        self._member = np.zeros((len(names), len(unique)))
        self._member[np.arange(len(names)), self.of] = 1
        self.sizes = sizes @ self._member
        langs = np.array([lang for lang, _ in unique])
        mean_sizes = np.array([self.sizes[langs == lang].mean() for lang in langs])
        self.weights = (self.sizes / mean_sizes) ** SIZE_SHARE
        """Advantage of a large category over the mean size in its language."""

    def sums(self, values: Floats) -> Floats:
        """Sums the rule groups of each category: (questions, rule groups) -> (questions, category groups)."""
        return np.asarray(values @ self._member)


class Nearness:
    """Computes the nearness of every rule from the texts that an index returns.

    In a rulebook of up to `EXHAUSTIVE_TEXTS` texts, these are all texts. In a larger one, they are the
    nearest, and the sum over a category's other texts is estimated: see `estimate_unreturned`. The scores
    of the ten best rules then differ by at most `MAX_SCORE_ERROR` from those of an exhaustive search. The
    cost of a question beyond the shortlist then depends on the number of rules, not of texts.
    """

    def __init__(self, texts: TextIndex, rules: RuleGroups, categories: CategoryGroups) -> None:
        self._texts, self._rules, self._categories = texts, rules, categories
        background = np.arange(rules.rows, len(texts))
        self._background = background.astype(np.int64)
        self.known = self._known()
        """By rule in one language: whether the encoder has read its texts."""
        if texts.shortlist is not None:
            means = texts.shortlist.means.reconstruct_n(0, len(rules.sizes)).astype(np.float64)
            means = categories.sums(means.T * rules.sizes).T / categories.sizes[:, None]
            self._means = MeanVectors(means.astype(np.float32))
            self._spread = 1 - np.square(means).sum(axis=1)

    def _known(self) -> NDArray[np.bool_]:
        if self._texts.shortlist is not None:
            means = self._texts.shortlist.means.reconstruct_n(0, len(self._rules.sizes))
            return np.asarray(means.any(axis=1))
        vectors = self._texts.vectors(0, self._rules.rows)
        return np.array([vectors[own].any() for own in self._rules.slices], np.bool_)

    def of(self, questions: Vectors) -> Floats:
        """Returns the nearness of each rule in each language: (questions, rule groups)."""
        rules, categories = self._rules, self._categories
        if self._texts.shortlist is None:
            cosines = self._texts.cosines(questions)
            sums = rules.sums(np.exp(cosines[:, : rules.rows] / TEMPERATURE))
            everyday = cosines[:, rules.rows :]
        else:
            sums = self._sums_from_nearest(questions)
            rows = np.broadcast_to(self._background, (len(questions), len(self._background)))
            everyday = self._texts.cosines_to(questions, rows)
        own = TEMPERATURE * np.log(sums / rules.sizes)
        category = TEMPERATURE * np.log(categories.sums(sums) / categories.sizes * categories.weights)
        mean = np.exp(everyday / BACKGROUND_TEMPERATURE).mean(axis=1, keepdims=True)
        background = BACKGROUND_TEMPERATURE * np.log(mean)
        return np.asarray(
            CATEGORY_SHARE * category[:, categories.of] + (1 - CATEGORY_SHARE) * own - background
        )

    def _sums_from_nearest(self, questions: Vectors) -> Floats:
        """Returns the sum of exp(cosine / TEMPERATURE) over the texts of each rule.

        A text that was not returned counts as much as such texts of its category on average.
        """
        rows, cosines = self._texts.nearest(questions)
        rules, categories = self._rules, self._categories
        found = rules.sums_at(rows, np.exp(cosines / TEMPERATURE))
        missing = rules.sizes - rules.sums_at(rows)
        # One product for both, since reading the groups of many rules takes longer than adding.
        both = categories.sums(np.concatenate([missing, rules.sums_at(rows, cosines)]))
        of_category, returned = np.split(both, 2)
        mean = self._means.cosines(questions)
        rest = (categories.sizes * mean - returned) / np.maximum(of_category, 1)
        limit = cosines.min(axis=1, keepdims=True)
        rest = estimate_unreturned(of_category, rest, limit, categories.sizes, mean, self._spread)
        return found + missing * (rest / np.maximum(of_category, 1))[:, categories.of]


def estimate_unreturned(
    missing: Floats, rest: Floats, limit: Floats, sizes: Floats, mean: Floats, spread: Floats
) -> Floats:
    """Estimates the sum of exp(cosine / TEMPERATURE) over the texts of each group that were not returned.

    Within the proven limits, it is what a normal distribution of the group's similarities, cut off at the
    lowest returned one, would give.

    Args:
        missing: number of such texts, (questions, groups).
        rest: mean of their similarities.
        limit: the lowest similarity of a returned text, (questions, 1).
        sizes: number of all texts of each group.
        mean: mean similarity of all texts of each group, (questions, groups).
        spread: mean squared distance of a group's texts from their mean vector, (groups,).
    """
    least, most = limits_of_unreturned(missing, rest, limit)
    variance = np.maximum(VARIANCE * spread, 1e-6)
    # The logistic function approximates the normal distribution's to within 0.01.
    below = (limit - mean - variance / TEMPERATURE) / np.sqrt(variance) * 1.702
    share = 1 / (1 + np.exp(-np.clip(below, -50, 50)))
    normal = sizes * np.exp((mean + variance / (2 * TEMPERATURE)) / TEMPERATURE) * share
    return np.asarray(np.clip(normal, least, most))


def limits_of_unreturned(missing: Floats, rest: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """Returns the least and the most that the sum of `estimate_unreturned` can be after an exact search.

    Number and mean of the similarities are known. As the exponential is convex, the sum is least if all are
    equal to their mean, and greatest if each is -1 or the limit, which none exceeds.
    """
    rest = np.clip(rest, -1, limit)
    least = missing * np.exp(rest / TEMPERATURE)
    weight = (rest + 1) / np.maximum(limit + 1, 1e-9)
    most = missing * (weight * np.exp(limit / TEMPERATURE) + (1 - weight) * np.exp(-1 / TEMPERATURE))
    return least, np.maximum(least, most)
