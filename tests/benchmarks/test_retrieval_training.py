"""Training of the learned parts of retrieval: its texts and its gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.retrieval.training.mixed_requests import PAIRS, mixed_requests
from benchmarks.retrieval.training.ranking import PERCEPTRON
from benchmarks.retrieval.training.rule_perceptron import train_rule_perceptron
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.relevance import delicate_requests


def test_a_mixed_request_fits_into_a_window_and_contains_a_delicate_one_if_it_says_so() -> None:
    mixed = mixed_requests()
    delicate = [request.text for request in delicate_requests()]
    assert mixed == mixed_requests()
    assert sum(one.delicate for one in mixed) == len(mixed) / 2 == PAIRS
    for one in mixed:
        assert len(split_into_windows(one.text)) == 1
        assert any(text in one.text for text in delicate) or not one.delicate


def test_the_perceptron_learns_which_rules_are_right_and_repeats_itself() -> None:
    """Texts near one of four corners, two of which are right for the third corner."""
    random = np.random.default_rng(0)
    corners = random.standard_normal((4, 20)).astype(np.float32)
    corner = random.integers(0, 4, 600)
    vectors = corners[corner] + 0.2 * random.standard_normal((600, 20)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    allowed = np.eye(4, dtype=np.float32)[corner]
    allowed[corner == 2, 3] = 1
    settings = replace(PERCEPTRON, units=32, batch=64)
    trained = [train_rule_perceptron(vectors, allowed, np.ones(600, np.float32), settings) for _ in range(2)]
    odds = np.exp(trained[0].log_probabilities(vectors))
    assert np.allclose(odds.sum(axis=1), 1)
    assert ((odds * allowed).sum(axis=1) > 0.9).mean() > 0.95
    assert np.array_equal(trained[0].hidden, trained[1].hidden)
