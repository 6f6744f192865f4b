"""The system text as a versioned file: a new wording is a new file, and episodes record its digest."""

from __future__ import annotations

from functools import cache
from pathlib import Path

VERSION = "1"


@cache
def system_prompt(version: str = VERSION) -> str:
    """Returns the system text, which explains when to consult the rules and when to answer directly."""
    path = Path(__file__).parent / f"system-{version}.md"
    return path.read_text(encoding="utf-8").strip()
