"""The everyday requests that the relevance decision is measured with, and must not have been trained on."""

from __future__ import annotations

import json

from benchmarks.retrieval.multilingual.everyday import REQUESTS
from rule_server.retrieval.background import background_requests
from rule_server.retrieval.relevance import delicate_requests, everyday_requests


def test_no_measured_everyday_request_was_trained_on() -> None:
    measured = [
        json.loads(line)["prompt"].casefold() for line in REQUESTS.read_text(encoding="utf-8").splitlines()
    ]
    trained = {request.text.casefold() for request in (*everyday_requests(), *delicate_requests())}
    trained.update(text.casefold() for text in background_requests())
    assert len(set(measured)) == len(measured) == 350
    assert not trained.intersection(measured)
