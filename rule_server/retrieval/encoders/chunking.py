"""Splits a long text into windows that the encoders read completely."""

from __future__ import annotations

import re

from rule_server.retrieval.relevance.language import ENGLISH, detect_language
from rule_server.rulebook import has_visible, visible_text

WINDOW_CHARS, OVERLAP_CHARS = 800, 100
"""The encoder reads about 1000 characters of plain prose, and the delicate part may be at the end of a
text."""
END_CHARS = 300
"""The end of a longer text is also a separate window, because a request often follows pasted text."""
MAX_WINDOW_TOKENS = 240
"""Maximum estimated tokens. The English encoder reads 256, the multilingual one any number."""
_TOKENS_PER_LATIN_LETTER = 0.4  # any digit, sign or letter of another script may be a token by itself
_LATIN_END = 0x250


def split_into_windows(text: str) -> list[str]:
    """Splits a text into overlapping windows, between words if possible. A short text is one window.

    Characters that show nothing are left out, since a window of them would get an arbitrary vector.
    """
    text = visible_text(text)
    windows = []
    english = detect_language(text) in (ENGLISH, None)
    end = [re.sub(r"^\S{0,50}\s", "", text[-END_CHARS:])] if len(text) > END_CHARS else []
    while (readable := _readable_chars(text, english)) < len(text):
        cut = min(WINDOW_CHARS, readable)
        windows.append(text[:cut])
        text = re.sub(r"^\S{0,50}\s", "", text[cut - min(OVERLAP_CHARS, cut // 4) :])
    return [window for window in (*windows, text, *end) if has_visible(window)] or [text]


def _readable_chars(text: str, english: bool) -> int:
    """Returns the number of leading characters that an encoder is certain to read."""
    if len(text) <= MAX_WINDOW_TOKENS:
        return len(text)
    if not english:
        return min(len(text), WINDOW_CHARS + OVERLAP_CHARS)
    tokens = 0.0
    for at, character in enumerate(text[: WINDOW_CHARS + OVERLAP_CHARS]):
        if not character.isspace():
            latin = character.isalpha() and ord(character) < _LATIN_END
            tokens += _TOKENS_PER_LATIN_LETTER if latin else 1.0
        if tokens > MAX_WINDOW_TOKENS:
            return at
    return min(len(text), WINDOW_CHARS + OVERLAP_CHARS)
