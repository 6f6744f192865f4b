"""Is the final answer right? A final number, an option letter or LaTeX is compared exactly; no judge."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from evaluation.latex import equivalent, final_expression, last_box

ANSWERS_VERSION = "exact-3"

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+−]?\.\d+")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}")
_MARKED = re.compile(r"(?:####|\b(?:final )?answer(?: is)?\s*[:=]?|\banswer is\b)\s*(.+)", re.IGNORECASE)
# 5 * 3 = 15: what stands behind counts, where it is one number and no other sum.
_SUM = re.compile(r"[^A-Za-z=]*(?:=[^A-Za-z=]*)*=(?=\s*[$€£]?[-+−]?[\d.,/]*\d\s*(?:[A-Za-z%.,;:!)]|$))")
_NAMED = re.compile(r"\b(?:option|choice|letter|answer)\W*$", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z'])\(?([A-Z])\)?(?![A-Za-z'])")


def is_right(answer: str, reference: str) -> bool | None:
    """Whether an answer ends in the reference; None when the reference cannot be compared with.

    The last `\\boxed{}`, `####` or "answer is" wins over the last number, letter or formula of the text.
    LaTeX that is not plainly the same text needs math-verify, which comes with `ascl[eval]`.
    """
    wanted = reference.strip()
    if not wanted:
        return None
    if re.fullmatch(r"[A-Z]", wanted):
        return final_letter(answer) == wanted
    number = _value(wanted)
    if number is not None and final_number(answer) == number:
        return True
    expression = final_expression(answer)
    if number is not None:
        # 24/2 and \\frac{24}{2} are 12 too; without math-verify such an answer counts as wrong.
        return expression is not None and "\\" in expression and equivalent(expression, wanted) is True
    return equivalent(expression or "", wanted)


def final_number(answer: str) -> Decimal | None:
    """The last number of the marked answer, else of the whole text; None where there is none."""
    for text in _candidates(answer):
        if text is not answer and re.search(r"[\\^]", text.replace("\\$", "").replace("\\%", "")):
            return None  # a formula: its first number is not its value
        chain = _SUM.match(text) if text is not answer else None
        numbers = _NUMBER.findall(text[chain.end() :] if chain else text)
        if numbers:
            return _value(numbers[-1] if text is answer else numbers[0])
    return None


def final_letter(answer: str) -> str | None:
    """The option letter of the marked answer, else the last lone capital (the words "I" and "A" excepted)."""
    *marked, whole = _candidates(answer)
    for text in marked:
        found = _LETTER.search(text)
        if found:
            return found.group(1)
    lone = [found[1] for found in _LETTER.finditer(whole) if not _is_word(found, whole)]
    return lone[-1] if lone else None


def _is_word(found: re.Match[str], text: str) -> bool:
    """Whether a lone A or I is the article or the pronoun, and no option."""
    if found[0] not in ("A", "I"):
        return False  # another letter, or in brackets
    before, after = text[: found.start()], text[found.end() :]
    listed = after[:1] in (".", ":") and not before.rpartition("\n")[2].strip()
    return not (_NAMED.search(before) or re.fullmatch(r"[\s.!*]*", after) or listed)


def _candidates(answer: str) -> list[str]:
    box = last_box(answer)
    marked = [*([_TEXT.sub(r"\1", box)] if box is not None else []), *_MARKED.findall(answer)[-1:]]
    return [*marked, answer]


def _value(text: str) -> Decimal | None:
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("−", "-").strip("$€£% .")
    if "_" in plain:  # a base, as in 52_8; Python would read over it
        return None
    numerator, _, denominator = plain.partition("/")
    try:
        value = Decimal(numerator)
        return value / Decimal(denominator) if denominator else value
    except (InvalidOperation, ZeroDivisionError):
        return None
