"""Decides whether any rule applies: language, everyday requests and the learned decision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

EVERYDAY_FILE = Path(__file__).with_name("everyday.jsonl")


@dataclass(frozen=True)
class EverydayRequest:
    """A request that no safety rule is about, written for this project."""

    text: str
    lang: str
    """ISO 639-1 code."""
    style: str
    """Kind of text: greeting, question, command, fragment, pasted text, ..."""


@cache
def everyday_requests() -> tuple[EverydayRequest, ...]:
    """Returns the everyday requests on which the decision was trained, in the order of the file."""
    # Only "\n" ends a row: a text may contain other line separators.
    lines = EVERYDAY_FILE.read_text(encoding="utf-8").split("\n")
    return tuple(EverydayRequest(**json.loads(line)) for line in lines if line)


def everyday_digest() -> str:
    """Returns the SHA-256 of the everyday requests, 64 hex characters."""
    return hashlib.sha256(EVERYDAY_FILE.read_bytes()).hexdigest()
