"""A long text in parts that the encoder reads whole."""

from __future__ import annotations

import re

WINDOW, OVERLAP = 800, 100
"""Characters: the encoder reads about 1000, and what is delicate may stand at the end of a long text."""


def windows(text: str) -> list[str]:
    """The text in overlapping parts, cut between words if possible; a short text is its only part."""
    parts = []
    while len(text) > WINDOW + OVERLAP:
        parts.append(text[:WINDOW])
        rest = text[WINDOW - OVERLAP :]
        text = re.sub(r"^\S{0,50}\s", "", rest)
    return [*parts, text]
