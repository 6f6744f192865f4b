"""Estimates the language of a question, as far as the encoders need it: is it English, and do they know it?

The script decides for most languages. Frequent words and letters distinguish those in Latin script.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

WORDS_FILE = Path(__file__).with_name("frequent_words.json")
LANGUAGE_VERSION = 1
"""Increment it when the same text may get another language: stored vectors then no longer count."""
ENGLISH = "en"
KNOWN_LANGUAGES = frozenset(
    ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "vi", "zh")
)
"""Languages of the multilingual encoder (Universal Sentence Encoder, multilingual, version 3).

Vietnamese is not among those that it was published for. The decision learned it from translated prompts.
"""
MAX_CHARS = 2000
"""Only the beginning of a longer text is read."""
MIN_FOREIGN_WORDS = 2
"""Frequent words of a language that the encoders do not know, before a text counts as being in it."""

_SCRIPTS = (
    (0x0370, 0x03FF, "el"),
    (0x0400, 0x052F, "ru"),
    (0x0530, 0x058F, "hy"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x077F, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0980, 0x09FF, "bn"),
    (0x0A00, 0x0A7F, "pa"),
    (0x0A80, 0x0AFF, "gu"),
    (0x0B00, 0x0B7F, "or"),
    (0x0B80, 0x0BFF, "ta"),
    (0x0C00, 0x0C7F, "te"),
    (0x0C80, 0x0CFF, "kn"),
    (0x0D00, 0x0D7F, "ml"),
    (0x0D80, 0x0DFF, "si"),
    (0x0E00, 0x0E7F, "th"),
    (0x0E80, 0x0EFF, "lo"),
    (0x0F00, 0x0FFF, "bo"),
    (0x1000, 0x109F, "my"),
    (0x10A0, 0x10FF, "ka"),
    (0x1100, 0x11FF, "ko"),
    (0x1200, 0x139F, "am"),
    (0x1780, 0x17FF, "km"),
    (0x1E00, 0x1EFF, "latin"),
    (0x3040, 0x30FF, "ja"),
    (0x3130, 0x318F, "ko"),
    (0x3400, 0x9FFF, "zh"),
    (0xAC00, 0xD7AF, "ko"),
    (0xF900, 0xFAFF, "zh"),
    (0xFB50, 0xFDFF, "ar"),
    (0xFE70, 0xFEFF, "ar"),
)
_OTHER_LETTERS = {"ru": ("uk", "іїєґ"), "ar": ("fa", "پچژگکیٹڈے")}
"""Letters that occur in another language of the same script only."""
_WORDS = re.compile(r"[^\W\d_]+")


def detect_language(text: str) -> str | None:
    """Returns the ISO 639-1 code of a text's language, or None when nothing indicates one (a name, code).

    A text in two scripts has the language of the one with more letters; an ideograph counts double.
    """
    text = text[:MAX_CHARS]
    if text.isascii():
        return _latin_language(text)
    scripts = Counter(_script(character) for character in text if character.isalpha())
    for dense in ("zh", "ja", "ko"):
        scripts[dense] *= 2
    if not scripts or not any(scripts.values()):
        return None
    script = scripts.most_common(1)[0][0]
    if script == "latin":
        return _latin_language(text)
    if script == "zh" and scripts["ja"] * 5 > scripts["zh"]:
        return "ja"
    if script in _OTHER_LETTERS:
        other, letters = _OTHER_LETTERS[script]
        found = sum(text.count(letter) for letter in letters)
        if found * 40 > scripts[script]:
            return other
    return script


@cache
def language_fingerprint() -> str:
    """Returns an identifier, 8 hex characters, that changes when a text may get another language."""
    return hashlib.sha256(b"%d" % LANGUAGE_VERSION + WORDS_FILE.read_bytes()).hexdigest()[:8]


def is_known(language: str | None) -> bool:
    """Returns whether similarity means something in a language. A text without one is searched as it is."""
    return language is None or language in KNOWN_LANGUAGES


def _script(character: str) -> str:
    code = ord(character)
    if code < 0x0370:
        return "latin"
    return next((name for first, last, name in _SCRIPTS if first <= code <= last), "other")


@cache
def _signs() -> tuple[dict[str, list[tuple[str, float]]], list[tuple[frozenset[str], list[str]]]]:
    """Returns the languages of each frequent word, with weights, and those of each set of letters."""
    data = json.loads(WORDS_FILE.read_text(encoding="utf-8"))
    languages: dict[str, list[str]] = {}
    for language, words in data["words"].items():
        for word in words.split():
            if len(word) > 1:  # a single letter is a variable more often than a word
                languages.setdefault(word, []).append(language)
    by_word = {word: [(name, 1 / len(names)) for name in names] for word, names in languages.items()}
    return by_word, [(frozenset(entry["letters"]), entry["languages"]) for entry in data["letters"]]


def _latin_language(text: str) -> str | None:
    """Returns the language with the most frequent words, a word of several languages counting less."""
    words = _WORDS.findall(text.lower())
    by_word, by_letters = _signs()
    points: dict[str, float] = defaultdict(float)
    hits: Counter[str] = Counter()
    for word in words:
        for language, weight in by_word.get(word, ()):
            points[language] += weight
            hits[language] += 1
        if word.isascii():
            continue  # every distinguishing letter has an accent
        for letters, languages in by_letters:
            if not letters.isdisjoint(word):
                for language in languages:
                    points[language] += 1 / len(languages)
                    hits[language] += 1
    if not points:
        return None
    known = max((points[name] for name in sorted(KNOWN_LANGUAGES)), default=0)
    best = max(sorted(points), key=lambda language: (points[language], language in KNOWN_LANGUAGES))
    certain = hits[best] >= MIN_FOREIGN_WORDS and points[best] > known and hits[best] >= 0.15 * len(words)
    if best in KNOWN_LANGUAGES or certain:
        return best
    return max(sorted(KNOWN_LANGUAGES), key=lambda name: points[name]) if known else None
