"""Everyday requests, which no safety rule is about: what a question must be nearer to the rules than to."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from rule_server.rulebook import parse_yaml


@cache
def background_requests() -> tuple[str, ...]:
    """The requests of `<lang>.yaml`, in a fixed order."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    domains = [parse_yaml(file.read_text(encoding="utf-8")) for file in files]
    return tuple(" ".join(text.split()) for found in domains for texts in found.values() for text in texts)


@cache
def background_digest() -> str:
    """SHA-256 of the requests, 64 hex characters: scores are compared under the same requests only."""
    return hashlib.sha256(repr(background_requests()).encode()).hexdigest()
