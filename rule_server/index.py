"""A rulebook embedded for search: its vectors, and how the nearest rules are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from rule_server.errors import ArtefactError
from rule_server.rulebook import Rule, Rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.encoder import Encoder, Vectors

NEIGHBOURS = 1024
"""Vectors looked at per search. In a larger index a distant text may count as the last of these."""


@dataclass(frozen=True)
class Hit:
    """A rule found, and its score: mean cosine of the two texts of it that are nearest to the question."""

    rule: Rule
    score: float


def texts_of(rule: Rule) -> list[str]:
    """What stands for a rule in the index: what it is about, then each phrasing a question may take.

    Measured on the 233 example prompts of our rules, which the index never sees (own rule first / own
    category first): one vector of title and `applies_when` .37/.59, with the queries joined to it .50/.69; a
    vector for each text, the best one .51/.76, mean of the best two .60/.82, of the best three .59/.80.
    """
    return [f"{rule.title}. {rule.applies_when}", *rule.queries]


def text_key(text: str) -> str:
    """Under which the vector of a text is kept, so that an edit embeds only what changed."""
    return hashlib.sha256(text.encode()).hexdigest()


def entries(rulebook: Rulebook) -> list[tuple[str, str]]:
    """(rule id, text) of every vector, in the order of the index; a rule's texts stand together."""
    spoken: dict[str, list[Rule]] = {id: [rule] for id, rule in rulebook.served.items()}
    for (id, _), rule in rulebook.translations.items():
        spoken[id].append(rule)
    return [(id, text) for id, rules in spoken.items() for rule in rules for text in texts_of(rule)]


class RuleIndex:
    """A rulebook, its vectors and a flat FAISS index over them. Immutable: an edit makes another one."""

    def __init__(self, rulebook: Rulebook, fingerprint: str, vectors: Vectors) -> None:
        """`vectors` is (n, dimension): one for each of `entries(rulebook)`, by the encoder of `fingerprint`.

        Raises:
            ArtefactError: when the number of vectors is not that of the texts.
        """
        listed = entries(rulebook)
        if vectors.shape[0] != len(listed):
            raise ArtefactError(f"{len(listed)} texts but {vectors.shape[0]} vectors: build the index again")
        self.rulebook = rulebook
        self.fingerprint = fingerprint
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self._keys = [text_key(text) for _, text in listed]
        ids = [id for id, _ in listed]
        self._rules = list(rulebook.served.values())
        self._rows = _row_table(ids)
        self._categories = np.array([id.partition(".")[0] for id in ids])
        self._answers = np.array([rulebook.served[id].stance == "answer" for id in ids], bool)
        self._flat = faiss.IndexFlatIP(self.vectors.shape[1])
        self._flat.add(self.vectors)
        self._selectors: dict[tuple[frozenset[str] | None, bool], tuple[Any, NDArray[np.bool_]]] = {}

    @classmethod
    def build(
        cls, rulebook: Rulebook, encoder: Encoder, known: Mapping[str, Vectors] | None = None
    ) -> RuleIndex:
        """Embed a rulebook, except the texts whose vectors are `known` (see `vectors_by_text`)."""
        known = known or {}
        texts = [text for _, text in entries(rulebook)]
        missing = sorted({text for text in texts if text_key(text) not in known})
        fresh = dict(zip(missing, encoder.encode(missing), strict=True)) if missing else {}
        rows = [fresh[text] if text in fresh else known[text_key(text)] for text in texts]
        return cls(rulebook, encoder.fingerprint, np.stack(rows))

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

        `question` is (windows, dimension): a long question in parts, each of which may find a rule. When none
        of the `top_k` is an `answer` rule of the nearest rule's category, its nearest one is added: what is
        fine must be as easy to find as what is not. Empty when no rule reaches the threshold.
        """
        wanted = None if categories is None else frozenset(categories)
        scores = self._scores(question, wanted)
        ranked = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] >= threshold]
        seen: dict[str, int] = {}
        turns = []
        for at in ranked:
            category = self._rules[at].category
            seen[category] = seen.get(category, 0) + 1
            turns.append(seen[category])
        chosen = [at for _, at in sorted(zip(turns, ranked, strict=True), key=lambda pair: pair[0])][:top_k]
        hits = [self._hit(at, scores) for at in chosen]
        if hits:
            top = hits[0].rule.category
            if not any(hit.rule.category == top and hit.rule.stance == "answer" for hit in hits):
                answers = self._scores(question, frozenset((top,)), answers_only=True)
                nearest = int(answers.argmax())
                if answers[nearest] > -np.inf:
                    hits.append(self._hit(nearest, answers))
        return hits

    def nearest(self, questions: Vectors) -> list[Rule]:
        """What `search` puts first for each question, (questions, dimension), however far it is."""
        return [self.search(row[None], top_k=1, threshold=-np.inf)[0].rule for row in questions]

    def _hit(self, at: int, scores: NDArray[np.float64]) -> Hit:
        return Hit(self._rules[at], round(float(scores[at]), 4))

    def _scores(
        self, question: Vectors, categories: frozenset[str] | None, answers_only: bool = False
    ) -> NDArray[np.float64]:
        """Score of every rule, (rules,); minus infinity for those that the filter leaves out."""
        selector, kept = self._selected(categories, answers_only)
        cosines = np.full(len(kept), -np.inf)
        count = min(int(kept.sum()), NEIGHBOURS)
        if count:
            params = None if selector is None else faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
            found, rows = self._flat.search(np.ascontiguousarray(question, np.float32), count, params=params)
            # What lies beyond the neighbours is at most as near as the last of them.
            cosines[kept] = found.min()
            for part, at in zip(found, rows, strict=True):
                cosines[at] = np.maximum(cosines[at], part)
        padded = np.append(cosines, -np.inf)[self._rows]
        return np.asarray(np.sort(padded, axis=1)[:, -2:].mean(axis=1))

    def _selected(
        self, categories: frozenset[str] | None, answers_only: bool
    ) -> tuple[Any, NDArray[np.bool_]]:
        """FAISS selector (None keeps all) and mask (n,) of the vectors kept; cached, as making one costs."""
        key = (categories, answers_only)
        if key not in self._selectors:
            kept = np.ones(len(self._categories), bool)
            if categories is not None:
                kept &= np.isin(self._categories, list(categories))
            if answers_only:
                kept &= self._answers
            bits = np.packbits(kept, bitorder="little")
            self._selectors[key] = (None if kept.all() else faiss.IDSelectorBitmap(bits), kept)  # type: ignore[call-arg, arg-type]
        return self._selectors[key]


def _row_table(ids: list[str]) -> NDArray[np.int64]:
    """(rules, most texts of a rule): the rows of each rule, filled up with len(ids), which is no row."""
    rows: dict[str, list[int]] = {}
    for row, id in enumerate(ids):
        rows.setdefault(id, []).append(row)
    table = np.full((len(rows), max(map(len, rows.values()))), len(ids), np.int64)
    for at, own in enumerate(rows.values()):
        table[at, : len(own)] = own
    return table
