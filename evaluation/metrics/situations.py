"""Texts that a consultation repeats from its conversation: copied words, and listed phrases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

NGRAM = 4
"""Words that must follow each other in both texts to count as copied; all words of a shorter situation."""
# Scripts without spaces: every character is a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|[^\W_]+")


def copied_share(situation: str, sources: Iterable[str]) -> float | None:
    """Returns the share of the situation's words that lie in an n-gram which also occurs in a source.

    Overlapping n-grams join, so a copied passage counts with its whole length. None for a situation without
    words.
    """
    words = split_words(situation)
    if not words:
        return None
    size = min(NGRAM, len(words))
    known: set[tuple[str, ...]] = set()
    for source in sources:
        known |= set(_ngrams(split_words(source), size))
    copied = [False] * len(words)
    for at, ngram in enumerate(_ngrams(words, size)):
        if ngram in known:
            copied[at : at + size] = [True] * size
    return sum(copied) / len(words)


def contains_phrase(situation: str, phrases: Iterable[str]) -> bool:
    """Returns whether a situation contains a phrase, regardless of case, spaces and punctuation."""
    words = split_words(situation)
    return any(
        bool(phrase) and tuple(phrase) in _ngrams(words, len(phrase)) for phrase in map(split_words, phrases)
    )


def split_words(text: str) -> list[str]:
    """Splits a text into words without case and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
