"""The search index of a rulebook: its vectors, their scores, and the choice of the rules that apply."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rule_server.errors import ArtefactError
from rule_server.retrieval.background import background_requests
from rule_server.retrieval.encoders.paired import split_vectors
from rule_server.retrieval.encoders.protocol import encode_rules
from rule_server.retrieval.search.scorer import PARTS, Part, Scorer
from rule_server.retrieval.search.text_index import TextIndex
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD, Threshold, scoring_version
from rule_server.rulebook import Rule, Rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Encoder, Vectors
    from rule_server.retrieval.relevance.model import RelevanceModel
    from rule_server.retrieval.relevance.ranking import RankingModel
    from rule_server.retrieval.search.scorer import Complete
    from rule_server.retrieval.threshold import Calibration

    Floats = NDArray[np.float64]

RETURN_MARGIN = 0.2
"""Distance below the threshold within which a rule is returned too, if another rule reaches the threshold."""
SCORING_BATCH = 256
"""Number of questions scored together, to bound memory."""


@dataclass(frozen=True)
class Hit:
    """A rule with its score, between 0 and 1: how certain it is that the rule applies.

    0.5 is the default threshold. A score grows with the similarity to the rule and its category, and shrinks
    with the similarity to everyday requests.
    """

    rule: Rule
    score: float


def rule_texts(rule: Rule) -> list[str]:
    """Returns the texts that represent a rule in the index: its subject, queries and examples."""
    about = f"{rule.title}. {rule.applies_when}"
    return [about, *rule.queries, *rule.examples.benign, *rule.examples.harmful]


def text_key(text: str) -> str:
    """Returns the key of a text's vector, by which an edit embeds only texts that changed."""
    return hashlib.sha256(text.encode()).hexdigest()


def index_entries(rulebook: Rulebook) -> list[tuple[str, str]]:
    """Returns (rule id, text) of every vector in index order. Everyday requests come last, with the id ""."""
    entries = [(rule.id, text) for rule in _with_translations(rulebook) for text in rule_texts(rule)]
    return [*entries, *(("", text) for text in background_requests())]


def _with_translations(rulebook: Rulebook) -> list[Rule]:
    """Returns the served rules, each followed by its translations."""
    versions: dict[str, list[Rule]] = {id: [rule] for id, rule in rulebook.served.items()}
    for (id, _), rule in rulebook.translations.items():
        versions[id].append(rule)
    return [rule for rules in versions.values() for rule in rules]


class RuleIndex:
    """A rulebook and its vectors. Immutable: an edit creates another index."""

    def __init__(
        self,
        rulebook: Rulebook,
        fingerprint: str,
        vectors: Vectors | Mapping[Part, TextIndex],
        calibration: Calibration | None = None,
    ) -> None:
        """Creates an index.

        Args:
            fingerprint: identifier of the encoder.
            vectors: (n, dimension), one for each of `index_entries(rulebook)`; or one index for each encoder.

        Raises:
            ArtefactError: the numbers of vectors and texts differ.
        """
        entries = index_entries(rulebook)
        versions = _with_translations(rulebook)
        sizes = [len(rule_texts(rule)) for rule in versions]
        if not isinstance(vectors, Mapping):
            parts = zip(PARTS, split_vectors(vectors, fingerprint), strict=True)
            vectors = {name: TextIndex.build(part, sizes) for name, part in parts if part is not None}
        self.rulebook = rulebook
        self.fingerprint = fingerprint
        self.texts: Mapping[Part, TextIndex] = vectors
        self.calibration = calibration
        """The measured threshold, possibly of an earlier version of the rulebook. None: not calibrated."""
        for part in self.texts.values():
            if len(part) != len(entries):
                raise ArtefactError(f"{len(entries)} texts but {len(part)} vectors: build the index again")
        self._entries = entries
        self._rules = list(rulebook.served.values())
        self._categories = [rule.category for rule in self._rules]
        self._category = np.array(self._categories)
        self._answers = np.array([rule.stance == "answer" for rule in self._rules], bool)
        self._scorer = Scorer.of(versions, [rule_texts(rule) for rule in versions], self.texts, fingerprint)
        self._rule_starts = _run_starts([rule.id for rule in versions])

    @classmethod
    def build(
        cls,
        rulebook: Rulebook,
        encoder: Encoder,
        known: Mapping[str, Vectors] | None = None,
        calibration: Calibration | None = None,
    ) -> RuleIndex:
        """Embeds a rulebook, except the texts whose vectors are `known` (see `vectors_by_text`)."""
        known = known or {}
        texts = [text for _, text in index_entries(rulebook)]
        missing = sorted({text for text in texts if text_key(text) not in known})
        fresh = dict(zip(missing, encode_rules(encoder, missing), strict=True)) if missing else {}
        rows = [fresh[text] if text in fresh else known[text_key(text)] for text in texts]
        return cls(rulebook, encoder.fingerprint, np.stack(rows), calibration)

    @property
    def vectors(self) -> Vectors:
        """A copy of the vectors of all texts, (n, dimension), in the order of `index_entries`."""
        return np.hstack([part.vectors() for part in self.texts.values()])

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._entries)

    def vectors_by_text(self) -> Mapping[str, Vectors]:
        """Returns the vectors by text key, for reuse by another version of the rulebook."""
        return _VectorsByText(self._entries, self.texts)

    def with_calibration(self, calibration: Calibration | None) -> RuleIndex:
        """Returns the same index with another measured threshold."""
        other = copy.copy(self)
        other.calibration = calibration
        return other

    def ranked_by(self, model: RankingModel, relevance: RelevanceModel | None = None) -> RuleIndex:
        """Returns the same index with another learned order, and optionally another decision, for
        comparisons."""
        other = copy.copy(self)
        other._scorer = self._scorer.ranked_by(model, relevance)
        return other

    @property
    def categories(self) -> list[str]:
        """Ids of the categories, sorted."""
        return [category.id for category in self.rulebook.categories]

    def search(
        self, question: Vectors, *, top_k: int, threshold: float, categories: Iterable[str] | None = None
    ) -> list[Hit]:
        """Returns the rules that apply, nearest first, but each category's first rule before any second one.

        If no rule reaches the threshold, the result is empty. Otherwise it includes rules up to
        `RETURN_MARGIN` below it. If none of the `top_k` is an `answer` rule of the nearest rule's category,
        the nearest such rule is added regardless of its score: permitted uses must be as easy to find as
        prohibited ones.

        Args:
            question: (windows, dimension); each window of a long question may find a rule.
            categories: search only these; None searches all.
        """
        return self.select(self.scores(question), top_k=top_k, threshold=threshold, categories=categories)

    def select(
        self, scores: Floats, *, top_k: int, threshold: float, categories: Iterable[str] | None = None
    ) -> list[Hit]:
        """Selects rules as `search` does, from the result of `scores`."""
        scores = self._mask_categories(scores, categories)
        if not scores.max(initial=-np.inf) >= threshold:
            return []
        order = np.argsort(-scores, kind="stable")
        ranked = order[scores[order] >= threshold - RETURN_MARGIN].tolist()
        chosen = self._take_turns(ranked, scores, threshold, top_k)
        top = self._rules[chosen[0]].category
        answering = self._answers & (self._category == top)
        if answering.any() and not answering[chosen].any():
            chosen.append(int(np.where(answering, scores, -np.inf).argmax()))
        return [Hit(self._rules[at], round(float(scores[at]), 4)) for at in chosen]

    def _take_turns(self, ranked: list[int], scores: Floats, threshold: float, top_k: int) -> list[int]:
        """Returns `top_k` of the ranked rules: a near rule of each category before a second one, then others.

        A rule is near if it reaches the threshold and half of the best score.
        """
        count = int((scores[ranked] >= max(threshold, scores[ranked[0]] / 2)).sum())
        seen: Counter[str] = Counter()
        turns: list[tuple[int, int]] = []
        for at in ranked[:count]:
            category = self._categories[at]
            seen[category] += 1
            turns.append((seen[category], at))
            if len(seen) == top_k:  # no later rule can come before these
                break
        near = [at for _, at in sorted(turns, key=lambda turn: turn[0])]
        return [*near, *ranked[count:]][:top_k]

    def ranked(self, scores: Floats, count: int, categories: Iterable[str] | None = None) -> list[Hit]:
        """Returns the `count` rules with the highest scores, regardless of the threshold."""
        scores = self._mask_categories(scores, categories)
        order = [int(at) for at in np.argsort(-scores, kind="stable")[:count] if np.isfinite(scores[at])]
        return [Hit(self._rules[at], round(float(scores[at]), 4)) for at in order]

    def _mask_categories(self, scores: Floats, categories: Iterable[str] | None) -> Floats:
        """Returns the scores with minus infinity for rules of other categories."""
        if categories is None:
            return scores
        return np.where(np.isin(self._category, list(categories)), scores, -np.inf)

    def nearest(self, questions: Vectors) -> list[Rule]:
        """Returns the best rule for each question, (questions, dimension), regardless of the threshold."""
        parts = [questions[at : at + SCORING_BATCH] for at in range(0, len(questions), SCORING_BATCH)]
        scores = [self._scores(part, [1] * len(part)) for part in parts]
        return [self._rules[at] for own in scores for at in own.argmax(axis=1)]

    def nearness(self, vectors: Vectors, part: Part) -> Floats:
        """Returns the nearness of each vector (n, dimension) to its nearest rule, by one encoder, (n,)."""
        parts = [vectors[at : at + SCORING_BATCH] for at in range(0, len(vectors), SCORING_BATCH)]
        return np.concatenate([self._scorer.nearness(own, part).max(axis=1) for own in parts])

    def certainty(self, vectors: Vectors) -> Floats:
        """Returns how certain the first stage is which rule comes first, for each vector, (n,)."""
        parts = [vectors[at : at + SCORING_BATCH] for at in range(0, len(vectors), SCORING_BATCH)]
        return np.concatenate([self._scorer.certainty(own) for own in parts])

    def split(self, vectors: Vectors) -> tuple[Vectors | None, Vectors, Vectors]:
        """Returns the multilingual and the English part of vectors, and that of other languages.

        Rules have no part of other languages, and a single encoder has no multilingual part.
        """
        return self._scorer.split(vectors)

    def scores(self, question: Vectors) -> Floats:
        """Returns the score of every rule, (rules,), in rulebook order.

        The best window of the question counts.
        """
        return np.asarray(self._scores(question, [len(question)]).max(axis=0))

    def score_batch(
        self, vectors: Vectors, sizes: Sequence[int], complete: Complete | None = None
    ) -> list[Floats]:
        """Returns `scores` of many questions at once.

        Args:
            vectors: (windows, dimension), the windows of one question after another.
            sizes: number of windows of each question.
            complete: adds the parts that windows need; None: they are there already.
        """
        starts = np.cumsum([0, *sizes])[:-1]
        return list(np.maximum.reduceat(self._scores(vectors, sizes, complete), starts, axis=0))

    def _scores(self, windows: Vectors, sizes: Sequence[int], complete: Complete | None = None) -> Floats:
        """Returns scores (windows, rules), for questions of `sizes` windows each.

        Minus infinity: no encoder knows the language.
        """
        if not self._rules:
            return np.empty((len(windows), 0))
        logits = self._scorer.log_odds(windows, sizes, complete)
        scores = 1 / (1 + np.exp(-logits))
        scores[np.isneginf(logits)] = -np.inf
        return np.asarray(np.maximum.reduceat(scores, self._rule_starts, axis=1))


class _VectorsByText(Mapping[str, "Vectors"]):
    """Vectors by text key. A vector is read when it is asked for."""

    def __init__(self, entries: Sequence[tuple[str, str]], texts: Mapping[Part, TextIndex]) -> None:
        self._rows = {text_key(text): row for row, (_, text) in enumerate(entries)}
        self._texts = texts

    def __getitem__(self, key: str) -> Vectors:
        row = self._rows[key]
        return np.hstack([part.vectors(row, 1)[0] for part in self._texts.values()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _run_starts(names: Sequence[str]) -> NDArray[np.int64]:
    """Returns the position at which each run of equal names begins."""
    return np.array([at for at, name in enumerate(names) if at == 0 or names[at - 1] != name], np.int64)


def threshold_for(index: RuleIndex, explicit: float | None) -> Threshold:
    """Returns the threshold of an index: explicit, else the rulebook's, else calibrated, else the default."""
    if explicit is not None:
        return Threshold(explicit, "set")
    if index.rulebook.threshold is not None:
        return Threshold(index.rulebook.threshold, "rulebook")
    calibration = index.calibration
    if calibration is None or calibration.scoring != scoring_version():
        return Threshold(DEFAULT_THRESHOLD, "default")
    current = calibration.rulebook == index.rulebook.digest
    return Threshold(calibration.threshold, "calibrated" if current else "stale")
