"""Decides whether any rule applies: language, our own training requests and the learned decision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

EVERYDAY_FILE = Path(__file__).with_name("everyday.jsonl")
DELICATE_FILE = Path(__file__).with_name("delicate.jsonl")


@dataclass(frozen=True)
class OwnRequest:
    """A request that was written for this project, to train the decision on."""

    text: str
    lang: str
    """ISO 639-1 code."""
    style: str
    """Kind of text (greeting, code, pasted text, ...), or what is delicate about it."""


@cache
def everyday_requests() -> tuple[OwnRequest, ...]:
    """Returns requests that no safety rule is about, in the order of the file."""
    return _read(EVERYDAY_FILE)


@cache
def delicate_requests() -> tuple[OwnRequest, ...]:
    """Returns requests that a safety rule is about, many of them disguised, in the order of the file.

    They ask for harmful things or touch on them; none contains a method.
    """
    return _read(DELICATE_FILE)


def requests_digest() -> str:
    """Returns the SHA-256 of both files, 64 hex characters."""
    return hashlib.sha256(EVERYDAY_FILE.read_bytes() + DELICATE_FILE.read_bytes()).hexdigest()


def _read(file: Path) -> tuple[OwnRequest, ...]:
    # Only "\n" ends a row: a text may contain other line separators.
    lines = file.read_text(encoding="utf-8").split("\n")
    return tuple(OwnRequest(**json.loads(line)) for line in lines if line)
