"""Texts that the order of the packaged rules is trained on and measured with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import LabelMap, expected_categories, read_rows
from benchmarks.retrieval.training.language_directions import language_projection
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.index import RuleIndex, index_entries, rule_texts, text_key
from rule_server.rulebook import Rulebook
from rule_server.schemas import MAX_SITUATION_CHARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

QUARTERS = 4
FOLDS = 5
"""Runs that leave rules' texts out."""


@dataclass(frozen=True)
class Texts:
    """Texts with the categories that are right for each."""

    vectors: Floats
    allowed: Floats
    """(texts, rules), 1 where a rule is right, in the order of `rules_by_category`."""
    groups: NDArray[np.str_]
    """Source of a prompt; "" for a rule's text."""
    quarters: NDArray[np.int64]
    """Run that leaves the prompt out; -1 for a rule's text."""
    rules: list[str]
    """Rule of a rule's text; "" for a prompt."""
    folds: NDArray[np.int64]
    """Run that leaves a rule's text out; -1 for a prompt, and for the title of a rule."""
    other: Floats | None = None
    """Vectors by the encoder of other languages. None: the part `other` is not trained."""
    projection: NDArray[np.float64] | None = None
    """Matrix that they are multiplied by before training, (d, d)."""


@dataclass(frozen=True)
class Prompt:
    """A prompt with its windows and the categories that are right."""

    id: str
    source: str
    text: str
    """The first window."""
    windows: Floats
    expected: frozenset[str]


def read_prompts(data: Path, labels: LabelMap, encoder: CachedEncoder) -> list[Prompt]:
    """Embeds the prompts whose label names categories."""
    labelled = [
        (row, split_into_windows(row["prompt"][:MAX_SITUATION_CHARS] or " "), expected)
        for row in read_rows(data)
        if (expected := expected_categories(row, labels))
    ]
    vectors = encoder.encode([window for _, windows, _ in labelled for window in windows])
    ends = np.cumsum([len(windows) for _, windows, _ in labelled]).tolist()
    return [
        Prompt(str(row["id"]), row["source"], windows[0], vectors[end - len(windows) : end], expected)
        for (row, windows, expected), end in zip(labelled, ends, strict=True)
    ]


def training_texts(
    prompts: Sequence[Prompt], index: RuleIndex, encoder: CachedEncoder, other: CachedEncoder | None = None
) -> Texts:
    """Returns the prompts' first windows and the rules' English texts.

    `other` is the encoder of other languages. Without it, the part `other` cannot be trained.
    """
    served = rules_by_category(index)
    entries = [(id, text) for id in served for text in rule_texts(index.rulebook.served[id])]
    allowed = [[category in prompt.expected for category in served.values()] for prompt in prompts]
    allowed += [[id == own for own in served] for id, _ in entries]
    rules = [text for _, text in entries]
    titles = {rule_texts(rule)[0] for rule in index.rulebook.served.values()}
    vectors = np.concatenate([np.stack([prompt.windows[0] for prompt in prompts]), encoder.encode(rules)])
    multilingual, english, _ = index.split(vectors)
    assert multilingual is not None
    return Texts(
        np.hstack([multilingual, english]),
        np.array(allowed, np.float32),
        np.array([prompt.source for prompt in prompts] + [""] * len(entries)),
        np.array([quarter_of(prompt.id) for prompt in prompts] + [-1] * len(entries)),
        [""] * len(prompts) + [id for id, _ in entries],
        np.array([-1] * len(prompts) + [_fold_of(text, titles) for _, text in entries]),
        other.encode([prompt.text for prompt in prompts] + rules) if other is not None else None,
        language_projection(other) if other is not None else None,
    )


def quarter_of(id: str) -> int:
    """Returns the run that leaves a prompt out."""
    return hashlib.sha256(id.encode()).digest()[0] % QUARTERS


def rules_by_category(index: RuleIndex) -> dict[str, str]:
    """Returns the category of each served rule, those of one category after another."""
    rules = sorted(index.rulebook.served.values(), key=lambda rule: (rule.category, rule.id))
    return {rule.id: rule.category for rule in rules}


def _fold_of(text: str, titles: set[str]) -> int:
    return -1 if text in titles else hashlib.sha256(text.encode()).digest()[0] % FOLDS


def without_fold(index: RuleIndex, fold: int) -> RuleIndex:
    """Returns an index without the queries and examples that a run leaves out."""

    def kept(texts: Sequence[str]) -> list[str]:
        return [text for text in texts if _fold_of(text, set()) != fold]

    book = index.rulebook
    rules = [
        rule.model_copy(
            update={
                "queries": kept(rule.queries),
                "examples": rule.examples.model_copy(
                    update={
                        "benign": kept(rule.examples.benign),
                        "harmful": kept(rule.examples.harmful),
                    }
                ),
            }
        )
        for rule in book.rules
    ]
    reduced = Rulebook(name=book.name, version=book.version, categories=book.categories, rules=rules)
    known = index.vectors_by_text()
    vectors = np.stack([known[text_key(text)] for _, text in index_entries(reduced)])
    return RuleIndex(reduced, index.fingerprint, vectors)
