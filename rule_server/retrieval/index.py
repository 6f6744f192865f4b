"""A rulebook embedded for search: its vectors, and how the nearest rules are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import faiss
import numpy as np

from rule_server.errors import ArtefactError
from rule_server.retrieval import background as ordinary
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD, Threshold, scoring_version
from rule_server.rulebook import Rule, Rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoder import Encoder, Vectors
    from rule_server.retrieval.threshold import Calibration

    Floats = NDArray[np.float64]

# The constants of the score, chosen on public evaluation sets; neighbouring values do nearly as well. What
# was tried and measured stands in docs/research/retrieval-log.md.
WIDTH = 0.1
"""Of the soft mean over a rule's or a category's texts: near texts count, far ones hardly."""
BACKGROUND_WIDTH = 0.06
"""The same for everyday requests, which have less in common."""
CATEGORY_SHARE = 0.75
"""How much of a score is the category's; the rest is the rule's own."""
SIZE_SHARE = 0.3
"""How much a category of many texts is favoured: 0, not at all; 1, its texts are summed, not averaged."""
REACH = 0.05
"""How far below the threshold a rule may lie that comes along with one which reaches it."""
SCORING_BATCH = 256
"""Questions scored together, to bound memory."""


@dataclass(frozen=True)
class Hit:
    """A rule found, and how much nearer the question is to it and its category than to everyday requests.

    Nearness is a soft mean of cosines, so the score lies between -2 and 2; most lie between -0.3 and 0.4.
    """

    rule: Rule
    score: float


def rule_texts(rule: Rule) -> list[str]:
    """What stands for a rule in the index: what it is about, and each phrasing that a question may take."""
    about = f"{rule.title}. {rule.applies_when}"
    return [about, *rule.queries, *rule.examples.benign, *rule.examples.harmful]


def text_key(text: str) -> str:
    """Under which the vector of a text is kept, so that an edit embeds only what changed."""
    return hashlib.sha256(text.encode()).hexdigest()


def index_entries(rulebook: Rulebook) -> list[tuple[str, str]]:
    """(rule id, text) of every vector, in the order of the index; everyday requests come last, with id ""."""
    ours = [(rule.id, text) for rule in _spoken(rulebook) for text in rule_texts(rule)]
    return [*ours, *(("", text) for text in ordinary.background_requests())]


def _spoken(rulebook: Rulebook) -> list[Rule]:
    """Served rules, each followed by its translations."""
    spoken: dict[str, list[Rule]] = {id: [rule] for id, rule in rulebook.served.items()}
    for (id, _), rule in rulebook.translations.items():
        spoken[id].append(rule)
    return [rule for rules in spoken.values() for rule in rules]


class RuleIndex:
    """A rulebook and its vectors, to be searched. Immutable: an edit makes another one."""

    def __init__(
        self,
        rulebook: Rulebook,
        fingerprint: str,
        vectors: Vectors,
        calibration: Calibration | None = None,
    ) -> None:
        """`vectors` is (n, dimension): one for each of `index_entries(rulebook)`, by `fingerprint`'s encoder.

        Raises:
            ArtefactError: when the number of vectors is not that of the texts.
        """
        listed = index_entries(rulebook)
        if vectors.shape[0] != len(listed):
            raise ArtefactError(f"{len(listed)} texts but {vectors.shape[0]} vectors: build the index again")
        self.rulebook = rulebook
        self.fingerprint = fingerprint
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.calibration = calibration
        """The measured threshold, perhaps of an earlier text of the rulebook; None when there is none."""
        self._keys = [text_key(text) for _, text in listed]
        self._rules = list(rulebook.served.values())
        self._category = np.array([rule.category for rule in self._rules])
        self._answers = np.array([rule.stance == "answer" for rule in self._rules], bool)
        spoken = _spoken(rulebook)
        # A rule's texts in one language, and its category's in that language: a question is in one language.
        self._own = _Groups([len(rule_texts(rule)) for rule in spoken])
        self._whole = _Union([(rule.lang, rule.category) for rule in spoken], self._own.sizes)
        self._rule = _starts([rule.id for rule in spoken])
        self._everyday = len(ordinary.background_requests())

    @classmethod
    def build(
        cls,
        rulebook: Rulebook,
        encoder: Encoder,
        known: Mapping[str, Vectors] | None = None,
        calibration: Calibration | None = None,
    ) -> RuleIndex:
        """Embed a rulebook, except the texts whose vectors are `known` (see `vectors_by_text`)."""
        known = known or {}
        texts = [text for _, text in index_entries(rulebook)]
        missing = sorted({text for text in texts if text_key(text) not in known})
        fresh = dict(zip(missing, encoder.encode(missing), strict=True)) if missing else {}
        rows = [fresh[text] if text in fresh else known[text_key(text)] for text in texts]
        return cls(rulebook, encoder.fingerprint, np.stack(rows), calibration)

    def vectors_by_text(self) -> dict[str, Vectors]:
        """What another version of the rulebook need not embed again."""
        return dict(zip(self._keys, self.vectors, strict=True))

    @property
    def categories(self) -> list[str]:
        """Ids of the categories, sorted."""
        return [category.id for category in self.rulebook.categories]

    def search(
        self, question: Vectors, *, top_k: int, threshold: float, categories: Iterable[str] | None = None
    ) -> list[Hit]:
        """The rules that apply, nearest first, but every category's first rule before any category's second.

        `question` is (windows, dimension): a long question in parts, each of which may find a rule. Empty
        when no rule reaches the threshold; rules that fall short of it by `REACH` at most come along. When
        none of the `top_k` is an `answer` rule of the nearest rule's category, its nearest one is added,
        however far: what is fine must be as easy to find as what is not.
        """
        return self.choose(self.scores(question), top_k=top_k, threshold=threshold, categories=categories)

    def choose(
        self, scores: Floats, *, top_k: int, threshold: float, categories: Iterable[str] | None = None
    ) -> list[Hit]:
        """What `search` finds, given what `scores` found."""
        scores = self._wanted(scores, categories)
        if not scores.max(initial=-np.inf) >= threshold:
            return []
        ranked = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] >= threshold - REACH]
        seen: dict[str, int] = {}
        turns = []
        for at in ranked:
            category = self._rules[at].category
            seen[category] = seen.get(category, 0) + 1
            turns.append(seen[category])
        chosen = [at for _, at in sorted(zip(turns, ranked, strict=True), key=lambda pair: pair[0])][:top_k]
        top = self._rules[chosen[0]].category
        answering = self._answers & (self._category == top)
        if answering.any() and not answering[chosen].any():
            chosen.append(int(np.where(answering, scores, -np.inf).argmax()))
        return [Hit(self._rules[at], round(float(scores[at]), 4)) for at in chosen]

    def ranked(self, scores: Floats, count: int, categories: Iterable[str] | None = None) -> list[Hit]:
        """The `count` rules with the highest of the `scores`, however low."""
        scores = self._wanted(scores, categories)
        order = [int(at) for at in np.argsort(-scores, kind="stable")[:count] if np.isfinite(scores[at])]
        return [Hit(self._rules[at], round(float(scores[at]), 4)) for at in order]

    def _wanted(self, scores: Floats, categories: Iterable[str] | None) -> Floats:
        """With minus infinity for rules of other categories."""
        if categories is None:
            return scores
        return np.where(np.isin(self._category, list(categories)), scores, -np.inf)

    def nearest(self, questions: Vectors) -> list[Rule]:
        """What `search` puts first for each question, (questions, dimension), however far it is."""
        parts = [questions[at : at + SCORING_BATCH] for at in range(0, len(questions), SCORING_BATCH)]
        return [self._rules[at] for part in parts for at in self._scores(part).argmax(axis=1)]

    def scores(self, question: Vectors) -> Floats:
        """Score of every rule, (rules,), in the order of the rulebook; of several windows the best counts."""
        return np.asarray(self._scores(question).max(axis=0))

    def scores_of(self, vectors: Vectors, questions: Sequence[slice]) -> list[Floats]:
        """As `scores`, for many questions at once; each is a run of rows of `vectors`."""
        rows = np.concatenate([vectors[question] for question in questions])
        starts = np.cumsum([0, *(question.stop - question.start for question in questions)])[:-1]
        return list(np.maximum.reduceat(self._scores(rows), starts, axis=0))

    def _scores(self, questions: Vectors) -> Floats:
        """(questions, rules)."""
        if not self._rules:
            return np.empty((len(questions), 0))
        # Every text has a part in the score, so nothing is gained by looking up the nearest ones first.
        cosines = faiss.pairwise_distances(
            np.ascontiguousarray(questions, np.float32), self.vectors, faiss.METRIC_INNER_PRODUCT
        ).astype(np.float64)
        rows = len(self.vectors) - self._everyday
        sums = self._own.sums(np.exp(cosines[:, :rows] / WIDTH))
        own = WIDTH * np.log(sums / self._own.sizes)
        whole = WIDTH * np.log(self._whole.sums(sums) / self._whole.sizes * self._whole.weights)
        everyday = np.exp(cosines[:, rows:] / BACKGROUND_WIDTH).mean(axis=1, keepdims=True)
        floor = BACKGROUND_WIDTH * np.log(everyday)
        scores = CATEGORY_SHARE * whole[:, self._whole.of] + (1 - CATEGORY_SHARE) * own - floor
        return np.asarray(np.maximum.reduceat(scores, self._rule, axis=1))


class _Groups:
    """Neighbouring columns that belong together."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.array(sizes, np.float64)
        self._starts = np.cumsum([0, *sizes])[:-1]

    def sums(self, values: Floats) -> Floats:
        """(questions, columns) -> (questions, groups)."""
        return np.asarray(np.add.reduceat(values, self._starts, axis=1))


class _Union:
    """Groups that belong together by language and category, wherever they stand."""

    def __init__(self, names: Sequence[tuple[str, str]], sizes: Floats) -> None:
        unique = sorted(set(names))
        self.of = np.array([unique.index(name) for name in names])
        self._member = np.zeros((len(names), len(unique)))
        self._member[np.arange(len(names)), self.of] = 1
        self.sizes = sizes @ self._member
        langs = np.array([lang for lang, _ in unique])
        usual = np.array([self.sizes[langs == lang].mean() for lang in langs])
        self.weights = (self.sizes / usual) ** SIZE_SHARE
        """A category may be broad; what is usual is so in its own language."""

    def sums(self, values: Floats) -> Floats:
        """(questions, groups) -> (questions, unions)."""
        return np.asarray(values @ self._member)


def _starts(names: Sequence[str]) -> NDArray[np.int64]:
    """Where each run of the same name begins."""
    return np.array([at for at, name in enumerate(names) if at == 0 or names[at - 1] != name], np.int64)


def threshold_for(index: RuleIndex, explicit: float | None) -> Threshold:
    """What holds for an index: the number set by hand, else the calibrated one, else the default."""
    if explicit is not None:
        return Threshold(explicit, "set")
    found = index.calibration
    if found is None or found.scoring != scoring_version():
        return Threshold(DEFAULT_THRESHOLD, "default")
    return Threshold(found.threshold, "calibrated" if found.rulebook == index.rulebook.digest else "stale")
