"""The system text, a versioned file: a new wording is a new file, and episodes carry its digest."""

from __future__ import annotations

from functools import cache
from pathlib import Path

VERSION = "1"


@cache
def system_prompt(version: str = VERSION) -> str:
    """The system text that tells the model when consulting the rules helps and when it does not."""
    path = Path(__file__).parent / f"system-{version}.md"
    return path.read_text(encoding="utf-8").strip()
