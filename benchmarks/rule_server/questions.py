"""Generates distinct questions of a given length from the texts of the rules, or everyday requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.relevance import everyday_requests
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD
from rule_server.rulebook import Rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.paired import PairedEncoder
    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.retrieval.index import RuleIndex

TARGET_TOKENS = 43


def generate_questions(
    rulebook: Rulebook, count: int, length: Callable[[str], int], seed: int = 0
) -> list[str]:
    """Returns `count` texts of 40 to 46 tokens, measured by `length`; deterministic for a seed.

    Each consists of queries of several rules, so it is about several subjects.
    """
    phrases = [query for rule in rulebook.served.values() for query in rule.queries]
    return _recombine([phrases], count, length, seed)


def generate_questions_about_one_rule(
    rulebook: Rulebook, count: int, length: Callable[[str], int], seed: int = 2
) -> list[str]:
    """Returns such texts that each consist of queries and examples of one rule, as most questions do."""
    groups = [
        [*rule.queries, *rule.examples.benign, *rule.examples.harmful] for rule in rulebook.served.values()
    ]
    return _recombine(groups, count, length, seed)


def generate_plain_questions(
    index: RuleIndex, encoder: PairedEncoder, count: int, length: Callable[[str], int], seed: int = 1
) -> list[str]:
    """Returns `count` texts of everyday requests, of the same length, that the first stage turns away.

    Raises:
        RuntimeError: the first stage turns too few away.
    """
    phrases = [request.text for request in everyday_requests() if request.lang == "en"]
    phrases = [text for text in phrases if len(text) < 200]
    candidates = _recombine([phrases], 4 * count, length, seed)
    plain: list[str] = []
    for at in range(0, len(candidates), 64):
        texts = candidates[at : at + 64]
        plain += [
            text
            for text, away in zip(texts, _rejected_by_first_stage(index, encoder, texts), strict=True)
            if away
        ]
    if len(plain) < count:
        raise RuntimeError(f"the first stage turned {len(plain)} of {len(candidates)} plain questions away")
    return plain[:count]


def _rejected_by_first_stage(index: RuleIndex, encoder: PairedEncoder, texts: Sequence[str]) -> list[bool]:
    passed: set[int] = set()

    def complete(_: Vectors, english: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        passed.update(int(row) for row in english)
        return np.ones(len(texts), np.bool_)

    scores = index.score_batch(encoder.encode_multilingual(texts), [1] * len(texts), complete)
    return [at not in passed and own.max() < DEFAULT_THRESHOLD for at, own in enumerate(scores)]


def _recombine(
    groups: Sequence[Sequence[str]], count: int, length: Callable[[str], int], seed: int
) -> list[str]:
    rng = random.Random(seed)
    questions: dict[str, None] = {}
    while len(questions) < count:
        phrases = rng.choice(groups)
        text = rng.choice(phrases)
        while length(text) < TARGET_TOKENS - 3:
            text = f"{text}; {rng.choice(phrases)}"
        words = text.split()
        while length(" ".join(words)) > TARGET_TOKENS + 3:
            words.pop()
        if length(" ".join(words)) >= TARGET_TOKENS - 3:
            questions[" ".join(words)] = None
    return list(questions)
