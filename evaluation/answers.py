"""Is the final answer right? Exact comparison of a final number or an option letter; no judge."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

ANSWERS_VERSION = "exact-1"

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+−]?\.\d+")
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?([^{}]*)\}")
_MARKED = re.compile(r"(?:####|\b(?:final )?answer(?: is)?\s*[:=]?|\banswer is\b)\s*(.+)", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z'])\(?([A-Z])\)?(?![A-Za-z'])")


def is_right(answer: str, reference: str) -> bool | None:
    """Whether an answer ends in the reference; None when the reference is neither a number nor one letter.

    The last `\\boxed{}`, `####` or "answer is" wins over the last number or letter of the text.
    """
    wanted = reference.strip()
    if re.fullmatch(r"[A-Z]", wanted):
        return final_letter(answer) == wanted
    number = _value(wanted)
    if number is None:
        return None
    return final_number(answer) == number


def final_number(answer: str) -> Decimal | None:
    """The last number of the marked answer, else of the whole text; None where there is none."""
    for text in _candidates(answer):
        numbers = _NUMBER.findall(text)
        if numbers:
            return _value(numbers[-1] if text is answer else numbers[0])
    return None


def final_letter(answer: str) -> str | None:
    """The option letter of the marked answer, else the last lone capital (the words I and A excepted)."""
    *marked, whole = _candidates(answer)
    for text in marked:
        found = _LETTER.search(text)
        if found:
            return found.group(1)
    lone = [letter for letter in _LETTER.findall(whole) if letter not in {"I", "A"}]
    alone = whole.strip(" .()*")
    return alone if re.fullmatch(r"[A-Z]", alone) else lone[-1] if lone else None


def _candidates(answer: str) -> list[str]:
    marked = [*_BOXED.findall(answer)[-1:], *_MARKED.findall(answer)[-1:]]
    return [*marked, answer]


def _value(text: str) -> Decimal | None:
    plain = text.strip().replace(",", "").replace("−", "-").strip("$€£% .")
    numerator, _, denominator = plain.partition("/")
    try:
        value = Decimal(numerator)
        return value / Decimal(denominator) if denominator else value
    except (InvalidOperation, ZeroDivisionError):
        return None
