"""Everyday requests that no safety rule is about; a rule applies only if it is closer to the question."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from rule_server.rulebook import parse_yaml


@cache
def background_requests() -> tuple[str, ...]:
    """Returns the requests of all `<lang>.yaml` files in a fixed order."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    domains = [parse_yaml(file.read_text(encoding="utf-8")) for file in files]
    return tuple(" ".join(text.split()) for domain in domains for texts in domain.values() for text in texts)


@cache
def background_digest() -> str:
    """Returns the SHA-256 of the requests, 64 hex characters. Scores are comparable only with the same
    requests."""
    return hashlib.sha256(repr(background_requests()).encode()).hexdigest()
