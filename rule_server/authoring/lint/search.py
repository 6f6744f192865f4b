"""Lint checks with vectors: rules that their own queries do not find, and rules with equivalent queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.encoders.paired import split_vectors
from rule_server.retrieval.encoders.protocol import encode_rules
from rule_server.retrieval.index import RuleIndex, text_key
from rule_server.rulebook import LintProblem

if TYPE_CHECKING:
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.encoders.protocol import Vectors

BATCH_SIZE = 256
DUPLICATE_COSINE = 0.88
"""Cosine of two rules' mean query vectors from which they have the same subject. Of 177 packaged rules with
different subjects, the nearest two are at 0.80."""


def check_search(
    index: RuleIndex, encoder: Encoder, files: Mapping[tuple[str, str], str]
) -> list[LintProblem]:
    """Searches with each rule's own queries, as the service does, except those of translations.

    Whether a question in another language finds its rule depends only on the encoder.
    """
    rules = list(index.rulebook.served.values())
    vectors = _vectors(index, encoder, [query for rule in rules for query in rule.queries])
    queries = [(rule, query) for rule in rules for query in rule.queries]
    problems = []
    for start in range(0, len(queries), BATCH_SIZE):
        batch = queries[start : start + BATCH_SIZE]
        nearest = index.nearest(np.stack([vectors[query] for _, query in batch]))
        for (rule, query), first in zip(batch, nearest, strict=True):
            if first.id != rule.id:
                problem = f"its own query {query!r} finds {first.id} first"
                fix = "reword the query, or move it to the rule that it is about"
                problems.append(LintProblem.sanitized(files[rule.id, ""], problem, fix))
    return problems + _check_duplicates(index, vectors, files)


def _check_duplicates(
    index: RuleIndex, vectors: Mapping[str, Vectors], files: Mapping[tuple[str, str], str]
) -> list[LintProblem]:
    rules = list(index.rulebook.served.values())
    means = np.stack([np.mean([vectors[query] for query in rule.queries], axis=0) for rule in rules])
    multilingual, english = split_vectors(means, index.fingerprint)
    # The limit was chosen for the English encoder. Rules in other languages have no English part.
    means = english if multilingual is None or english.any() else multilingual
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    problems = []
    for one, other in zip(*np.nonzero(np.triu(means @ means.T, 1) >= DUPLICATE_COSINE), strict=True):
        problem = f"the same questions would match it and {rules[one].id}: their queries mean the same"
        fix = "join the two rules, or give each the queries that the other does not answer"
        problems.append(LintProblem.sanitized(files[rules[other].id, ""], problem, fix))
    return problems


def _vectors(index: RuleIndex, encoder: Encoder, texts: Sequence[str]) -> dict[str, Vectors]:
    """Returns the vector (dimension,) of each text. Only texts that the index lacks are encoded."""
    indexed = index.vectors_by_text()
    vectors = {text: indexed[text_key(text)] for text in texts if text_key(text) in indexed}
    missing = sorted(set(texts) - vectors.keys())
    if missing:
        vectors |= zip(missing, encode_rules(encoder, missing), strict=True)
    return vectors
