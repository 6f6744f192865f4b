"""What only vectors tell of a rulebook: rules that their own queries do not find, and rules that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.index import RuleIndex, text_key
from rule_server.rulebook import LintProblem

if TYPE_CHECKING:
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.encoder import Vectors

BATCH = 256
NEAR = 0.88
"""Cosine of the mean vectors of two rules' queries from which they are about the same; of 177 rules of ours
that people hold apart, the nearest two are at 0.80."""


def check_search(
    index: RuleIndex, encoder: Encoder, files: Mapping[tuple[str, str], str]
) -> list[LintProblem]:
    """Search as the service does, by every rule's own queries; those of translations are left out.

    Whether a question in another language finds its rule depends on the encoder alone.
    """
    rules = list(index.rulebook.served.values())
    vectors = _vectors(index, encoder, [query for rule in rules for query in rule.queries])
    asked = [(rule, query) for rule in rules for query in rule.queries]
    problems = []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        nearest = index.nearest(np.stack([vectors[query] for _, query in batch]))
        for (rule, query), first in zip(batch, nearest, strict=True):
            if first.id != rule.id:
                problem = f"its own query {query!r} finds {first.id} first"
                fix = "reword the query, or move it to the rule that it is about"
                problems.append(LintProblem.of(files[rule.id, ""], problem, fix))
    return problems + _near(index, vectors, files)


def _near(
    index: RuleIndex, vectors: Mapping[str, Vectors], files: Mapping[tuple[str, str], str]
) -> list[LintProblem]:
    rules = list(index.rulebook.served.values())
    means = np.stack([np.mean([vectors[query] for query in rule.queries], axis=0) for rule in rules])
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    problems = []
    for one, other in zip(*np.nonzero(np.triu(means @ means.T, 1) >= NEAR), strict=True):
        problem = f"people would ask for it as for {rules[one].id}: their queries mean the same"
        fix = "join the two rules, or give each the queries that the other does not answer"
        problems.append(LintProblem.of(files[rules[other].id, ""], problem, fix))
    return problems


def _vectors(index: RuleIndex, encoder: Encoder, texts: Sequence[str]) -> dict[str, Vectors]:
    """Vector (dimension,) of each text; the encoder is asked only for what the index does not hold."""
    known = index.vectors_by_text()
    found = {text: known[text_key(text)] for text in texts if text_key(text) in known}
    missing = sorted(set(texts) - found.keys())
    if missing:
        found |= zip(missing, encoder.encode(missing), strict=True)
    return found
