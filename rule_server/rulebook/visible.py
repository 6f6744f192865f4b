"""Removes characters that a reader does not see, such as zero-width spaces and control characters.

The encoder does not see most of them either. It would place a text without any other character at an
arbitrary point, where rules apply that have nothing to do with it.
"""

from __future__ import annotations

import re
import unicodedata

_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800\ufffd"
"""Letters and symbols without a glyph (Hangul fillers, the empty Braille pattern), and the replacement
character, which stands for bytes that could not be decoded."""
_BLANK_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Marks without a glyph, such as variation selectors (Default_Ignorable_Code_Point in Unicode)."""
_JOINERS = "\u200c\u200d"
"""Zero-width characters that change how the letters beside them are written, in some scripts."""
_NEVER_JOINED = (
    "LATIN ",
    "CYRILLIC ",
    "GREEK ",
    "CJK ",
    "HANGUL ",
    "HIRAGANA ",
    "KATAKANA ",
    "FULLWIDTH ",
    "COMBINING ",
)
"""How the Unicode names of letters begin that joiners do not change."""
_OTHER_THAN_ASCII = re.compile(r"[^\s!-~]")
_LONG_SPACE = re.compile(r"\s{3,}")


def is_visible(character: str) -> bool:
    """Returns whether a character shows something by itself, unlike spaces, marks and control characters."""
    category = unicodedata.category(character)
    # Unassigned characters count as visible: they may be newer than this Python.
    return (category[0] not in "CMZ" or category == "Cn") and character not in _BLANK_LETTERS


def has_visible(text: str) -> bool:
    """Returns whether a text contains a visible character."""
    return any(map(is_visible, text))


def visible_text(text: str) -> str:
    """Returns a text without invisible characters and with short spaces; its visible words do not change.

    Accents stay, and joiners between two characters that they may change.
    """
    if _OTHER_THAN_ASCII.search(text):
        text = "".join(c for at, c in enumerate(text) if c.isspace() or _is_kept(c) or _joins(text, at))
    return _LONG_SPACE.sub(" ", text)


def _is_kept(character: str) -> bool:
    if is_visible(character):
        return True
    return unicodedata.category(character)[0] == "M" and not _BLANK_MARKS.match(character)


def _joins(text: str, at: int) -> bool:
    if text[at] not in _JOINERS:
        return False
    if not 0 < at < len(text) - 1:
        return False
    beside = text[at - 1], text[at + 1]
    return all(map(_is_kept, beside)) and not all(map(_is_never_joined, beside))


def _is_never_joined(character: str) -> bool:
    return character.isascii() or unicodedata.name(character, "").startswith(_NEVER_JOINED)
