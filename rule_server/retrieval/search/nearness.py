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
    Rows = NDArray[np.int64]

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
READ_RULES, READ_TEXTS = 64, 1024
"""The most rules of a large rulebook that are read for a question, and their most texts in all."""
SECTIONS = 32
"""The most parts of a category of a large rulebook, each of which has its own estimate."""
VARIANCE = 0.01
"""Variance of a question's similarities to texts, per unit of the texts' mean squared distance from
their mean vector. Measured on the packaged rules: see `estimate_unreturned`."""
CODED_VARIANCE = 0.6
"""Share of that variance that remains in the similarities to the codes of texts, which select the nearest.
Measured on the packaged rules: .65 for the multilingual encoder and .58 for the English one."""
MAX_SCORE_ERROR = 0.11
"""Measured, not proven: more than the largest error of a score in the measurements of
benchmarks/retrieval/RESULTS.md. The mean error there is about 0.01."""


class RuleGroups:
    """Adjacent texts that belong to one rule in one language."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.array(sizes, np.float64)
        ends = np.cumsum([0, *sizes])
        self.rows = int(ends[-1])
        """Number of texts of all rules."""
        self.starts = ends[:-1]
        self.slices = [slice(*pair) for pair in pairwise(ends.tolist())]
        self.of = np.repeat(np.arange(len(sizes)), sizes)
        """By text: the group that it belongs to."""

    def sums(self, values: Floats) -> Floats:
        """Sums the columns of each group: (questions, texts) -> (questions, groups)."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=1))


class CategoryGroups:
    """Rule groups of the same language and category, in any position."""

    def __init__(self, names: Sequence[tuple[str, str]], sizes: Floats) -> None:
        unique = sorted(set(names))
        places = {name: at for at, name in enumerate(unique)}
        self.of = np.array([places[name] for name in names], np.int64)
        """By rule group: its category group."""
        self.sizes = sums_by(self.of[None], len(unique), sizes)[0]
        langs = np.array([lang for lang, _ in unique])
        mean_sizes = np.array([self.sizes[langs == lang].mean() for lang in langs])
        self.weights = (self.sizes / mean_sizes) ** SIZE_SHARE
        """Advantage of a large category over the mean size in its language."""

    def soft_means(self, sums: Floats, groups: Rows) -> Floats:
        """Returns the soft mean of each category, (questions, category groups).

        Args:
            sums: sums of exp(cosine / TEMPERATURE) over the texts of smaller groups, (questions, groups).
            groups: the category of each of these groups.
        """
        sums = sums_by(np.broadcast_to(groups, sums.shape), len(self.sizes), sums)
        return np.asarray(TEMPERATURE * np.log(sums / self.sizes * self.weights))


class Sections:
    """Parts of each category of a large rulebook: rules with similar texts, for closer estimates."""

    def __init__(self, means: Vectors, rules: RuleGroups, categories: CategoryGroups) -> None:
        """Takes the mean vectors of the rules' texts, (rule groups, dimension)."""
        self.of = sections_of(means, categories.of)
        """By rule group: its section."""
        self.sizes = sums_by(self.of[None], int(self.of.max()) + 1, rules.sizes)[0]
        order = np.argsort(self.of, kind="stable")
        starts = np.searchsorted(self.of[order], np.arange(len(self.sizes)))
        self.category = categories.of[order[starts]]
        """By section: its category group."""
        weighted = means[order] * rules.sizes[order, None]
        centres = np.add.reduceat(weighted, starts) / self.sizes[:, None]
        self.means = MeanVectors(centres.astype(np.float32))
        self.spread = 1 - np.square(centres).sum(axis=1)
        """Mean squared distance of a section's texts from their mean vector."""


class Nearness:
    """Computes the nearness of every rule from the texts that an index returns.

    In a rulebook of up to `EXHAUSTIVE_TEXTS` texts, these are all texts. In a larger one, they are the
    nearest, and the sum over a section's other texts is estimated: see `estimate_unreturned`. Then all texts
    of the best rules are read, so that their order within a category is exact. The scores of the ten best
    rules differ by at most `MAX_SCORE_ERROR` from those of an exhaustive search.
    """

    def __init__(self, texts: TextIndex, rules: RuleGroups, categories: CategoryGroups) -> None:
        self._texts, self._rules, self._categories = texts, rules, categories
        self._background = np.arange(rules.rows, len(texts), dtype=np.int64)
        self._sections: Sections | None = None
        if texts.shortlist is None:
            vectors = texts.vectors(0, rules.rows)
            known = [vectors[own].any() for own in rules.slices]
        else:
            means = texts.shortlist.means.reconstruct_n(0, len(rules.sizes))
            self._sections = Sections(means, rules, categories)
            known = means.any(axis=1)
        self.known = np.array(known, np.bool_)
        """By rule in one language: whether the encoder has read its texts."""

    def of(self, questions: Vectors) -> Floats:
        """Returns the nearness of each rule in each language: (questions, rule groups)."""
        rules, categories = self._rules, self._categories
        if self._sections is not None and not self.known.any():
            return np.zeros((len(questions), len(rules.sizes)))
        if self._sections is None:
            cosines = self._texts.cosines(questions)
            sums = rules.sums(np.exp(cosines[:, : rules.rows] / TEMPERATURE))
            category = categories.soft_means(sums, categories.of)
            everyday = cosines[:, rules.rows :]
        else:
            sums, of_sections = self._sums_from_nearest(questions, self._sections)
            category = categories.soft_means(of_sections, self._sections.category)
            rows = np.broadcast_to(self._background, (len(questions), len(self._background)))
            everyday = self._texts.cosines_to(questions, rows)
        own = TEMPERATURE * np.log(sums / rules.sizes)
        mean = np.exp(everyday / BACKGROUND_TEMPERATURE).mean(axis=1, keepdims=True)
        shared = CATEGORY_SHARE * category - BACKGROUND_TEMPERATURE * np.log(mean)
        nearness = (1 - CATEGORY_SHARE) * own + shared.take(categories.of, axis=1)
        if self._sections is not None:
            for at, question in enumerate(questions):
                best = self._best(nearness[at])
                if len(best):  # otherwise the first has too many texts
                    exact = self._own(question, best)
                    nearness[at, best] += (1 - CATEGORY_SHARE) * (exact - own[at, best])
        return np.asarray(nearness)

    def _best(self, nearness: Floats) -> Rows:
        """Returns the rules to read for a question: those with the highest nearness, in rulebook order."""
        count = min(READ_RULES, len(nearness))
        best = np.argpartition(-nearness, count - 1)[:count]
        best = best[np.argsort(-nearness[best], kind="stable")]
        return np.sort(best[np.cumsum(self._rules.sizes[best]) <= READ_TEXTS])

    def _own(self, question: Vectors, some: Rows) -> Floats:
        """Returns the soft mean over all texts of each of some rules, (some,)."""
        sizes = self._rules.sizes[some].astype(np.int64)
        ends = np.cumsum(sizes)
        rows = np.arange(sizes.sum()) + np.repeat(self._rules.starts[some] - ends + sizes, sizes)
        exponentials = np.exp(self._texts.cosines_to(question[None], rows[None]) / TEMPERATURE)
        sums = sums_by(np.repeat(np.arange(len(some)), sizes)[None], len(some), exponentials)[0]
        return np.asarray(TEMPERATURE * np.log(sums / sizes))

    def _sums_from_nearest(self, questions: Vectors, sections: Sections) -> tuple[Floats, Floats]:
        """Returns the sums of exp(cosine / TEMPERATURE) over the texts of each rule and of each section.

        A text that was not returned counts as much as such texts of its section on average.
        """
        rules, count = self._rules, len(sections.sizes)
        rows, cosines, limit = self._texts.nearest(questions)
        of_rule = rules.of[rows]
        of_section = sections.of[of_rule]
        exponentials = np.exp(cosines / TEMPERATURE)
        mean = sections.means.cosines(questions)
        missing = sections.sizes - sums_by(of_section, count)
        rest = (sections.sizes * mean - sums_by(of_section, count, cosines)) / np.maximum(missing, 1)
        unreturned = estimate_unreturned(missing, rest, limit, sections.sizes, mean, sections.spread)
        each = (unreturned / np.maximum(missing, 1)).take(sections.of, axis=1)
        found = sums_by(of_rule, len(rules.sizes), exponentials)
        missing_of_rule = rules.sizes - sums_by(of_rule, len(rules.sizes))
        return found + missing_of_rule * each, unreturned + sums_by(of_section, count, exponentials)


def sections_of(means: Vectors, categories: Rows) -> Rows:
    """Returns the section of each rule group, of which each category has up to `SECTIONS`.

    Args:
        means: the mean vectors of the rules' texts, (rule groups, dimension).
        categories: the category of each rule group.
    """
    of, count = np.empty(len(categories), np.int64), 0
    for category in range(int(categories.max()) + 1):
        own = np.flatnonzero(categories == category)
        centres = means[own[:: -(-len(own) // SECTIONS)]]
        distances = np.square(centres).sum(axis=1) / 2 - means[own] @ centres.T
        used, sections = np.unique(distances.argmin(axis=1), return_inverse=True)
        of[own] = count + sections
        count += len(used)
    return of


def sums_by(groups: Rows, count: int, values: Floats | None = None) -> Floats:
    """Sums values by their group, or counts them: (questions, some) -> (questions, count).

    A product with a matrix would depend on the number of questions in its last digit.
    """
    cells = groups + count * np.arange(len(groups))[:, None]
    weights = None if values is None else values.ravel()
    sums = np.bincount(cells.ravel(), weights, count * len(groups)).reshape(-1, count)
    return np.asarray(sums, np.float64)


def estimate_unreturned(
    missing: Floats, rest: Floats, limit: Floats, sizes: Floats, mean: Floats, spread: Floats
) -> Floats:
    """Estimates the sum of exp(cosine / TEMPERATURE) over the texts of each group that were not returned.

    Within approximate limits, it is what a normal distribution of the group's similarities would give if the
    texts up to the limit of the similarities to their codes were not returned.

    Args:
        missing: number of such texts, (questions, groups).
        rest: mean of their similarities.
        limit: the lowest similarity of a question to the code of a returned text, (questions, 1).
        sizes: number of all texts of each group.
        mean: mean similarity of all texts of each group, (questions, groups).
        spread: mean squared distance of a group's texts from their mean vector, (groups,).
    """
    least, most = limits_of_unreturned(missing, rest, limit)
    variance = np.maximum(VARIANCE * spread, 1e-6)
    coded = CODED_VARIANCE * variance
    # The logistic function approximates the normal distribution's to within 0.01.
    below = (limit - mean - coded / TEMPERATURE) / np.sqrt(coded) * 1.702
    share = 1 / (1 + np.exp(-np.clip(below, -50, 50)))
    normal = sizes * np.exp((mean + variance / (2 * TEMPERATURE)) / TEMPERATURE) * share
    return np.asarray(np.clip(normal, least, most))


def limits_of_unreturned(missing: Floats, rest: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """Returns the least and the most that the sum of `estimate_unreturned` can be, if none exceeds the limit.

    Number and mean of the similarities are known. As the exponential is convex, the sum is least if all are
    equal to their mean, and greatest if each is -1 or the limit. Codes choose the texts: a few may exceed it.
    """
    rest = np.clip(rest, -1, limit)
    least = missing * np.exp(rest / TEMPERATURE)
    weight = (rest + 1) / np.maximum(limit + 1, 1e-9)
    most = missing * (weight * np.exp(limit / TEMPERATURE) + (1 - weight) * np.exp(-1 / TEMPERATURE))
    return least, np.maximum(least, most)
