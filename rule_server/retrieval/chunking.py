"""A long text in parts that the encoder reads whole."""

from __future__ import annotations

import re

WINDOW, OVERLAP = 800, 100
"""Characters: the encoder reads about 1000 of plain prose, and what is delicate may stand at a text's end."""
TOKENS = 240
"""Estimated tokens: the packaged encoder reads 256 of them."""
_PER_LETTER = 0.4  # of a Latin word; every digit, sign and letter of another script may be a token by itself
_LATIN = 0x250


def split_into_windows(text: str) -> list[str]:
    """The text in overlapping parts, cut between words if possible; a short text is its only part."""
    parts = []
    while (reach := _reach(text)) < len(text):
        cut = min(WINDOW, reach)
        parts.append(text[:cut])
        text = re.sub(r"^\S{0,50}\s", "", text[cut - min(OVERLAP, cut // 4) :])
    return [*parts, text]


def _reach(text: str) -> int:
    """How many characters the encoder surely reads."""
    if len(text) <= TOKENS:
        return len(text)
    tokens = 0.0
    for at, character in enumerate(text[: WINDOW + OVERLAP]):
        if not character.isspace():
            tokens += _PER_LETTER if character.isalpha() and ord(character) < _LATIN else 1.0
        if tokens > TOKENS:
            return at
    return min(len(text), WINDOW + OVERLAP)
