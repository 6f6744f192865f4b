"""Everyday requests, which no safety rule is about: what a question must be nearer to the rules than to."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from rule_server.front_matter import parse_yaml


@cache
def requests() -> dict[str, list[str]]:
    """The requests by language; "" is English, as the rules are. They stand in `ordinary.<lang>.yaml`."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("ordinary*.yaml")):
        domains = parse_yaml(file.read_text(encoding="utf-8"))
        lang = file.stem.partition(".")[2]
        found[lang] = [" ".join(text.split()) for texts in domains.values() for text in texts]
    return found


@cache
def digest() -> str:
    """SHA-256 of the requests, 64 hex characters: scores are compared under the same requests only."""
    return hashlib.sha256(repr(requests()).encode()).hexdigest()
