"""Is the final answer right? A final number, an option letter or LaTeX is compared exactly; no judge."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from evaluation.scorers.answers.latex import TEXT, equivalent, final_expression, last_box, marked_texts

ANSWERS_VERSION = "exact-4"

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+−]?\.\d+")
# 5 x 3 = 15: what stands behind counts, where it is one number and no other sum.
_TERM = r"(?:[^A-Za-z=]|(?<=[\s\d)])[xX](?=\s*[$(\d]))*"
_SUM = re.compile(
    rf"{_TERM}(?:={_TERM})*=(?=\s*[$€£]?[-+−]?[\d.,/]*\d\s*(?:[A-Za-z%.,;:!)$\\]|\*\*\D|\*\*$|$))"
)
# "After 3 days, she has 12" and "12 after 3 days": the circumstance is not what was asked for.
_BESIDES = re.compile(
    r"\b(?:after|before|for|in|within|during|out of|from|since|every)(?: the)? \W*$", re.IGNORECASE
)
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_NAMED = re.compile(r"\b(?:option|choice|letter|(answer))\W*$", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z'’])\(?([A-Z])\)?(?![A-Za-z'’]|-\w)")
_SMALL_LETTER = re.compile(r"(?<![A-Za-z'’])\([a-z]\)|\b[Oo]ption [a-z]\b")
_ENDS = re.compile(r"[\s.!*]*\Z")
# "A good choice", "I think", but not "A because it floats".
_PHRASE = re.compile(
    r"\s+(?!(?:and|are|as|at|because|but|by|due|for|from|given|has|here|if|in|is|it|not|of|on|or|since|that|the|"
    r"to|we|when|where|which|while|with)\b)[a-z]"
)


def is_right(answer: str, reference: str) -> bool | None:
    """Whether an answer ends in the reference; None when the reference cannot be compared with.

    The last `\\boxed{}`, else the last `####`, "answer is" or "answer:" that holds one, wins over the last
    number, letter or formula of the text.
    LaTeX that is not plainly the same text needs math-verify, which comes with `ascl[eval]`.
    """
    # 1{,}234 is how LaTeX keeps the space away from a comma between thousands.
    wanted, answer = (text.replace("{,}", ",") for text in (reference.strip(), answer))
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
    """The number of the last marked text that holds one, else the last of the whole text; else None."""
    *marked, whole = _candidates(answer)
    for text in marked:
        if re.search(r"[\\^]", re.sub(r"\\[$%()\[\]]", "", text)):
            return None  # a formula: its first number is not its value
        if numbers := list(_NUMBER.finditer(text)):
            return _value(_asked(numbers, text))
    found = _NUMBER.findall(whole)
    return _value(found[-1]) if found else None


def _asked(numbers: list[re.Match[str]], text: str) -> str:
    """Of the numbers of a marked text, the one that answers: the first, or what a sum from it comes to."""
    end = _SENTENCE.search(text, numbers[0].end())
    sentence = [number for number in numbers if end is None or number.start() < end.start()]
    first = next((one for one in sentence if not _BESIDES.search(text[: one.start()])), numbers[0])
    chain = _SUM.match(text, first.start())
    after = _NUMBER.search(text, chain.end()) if chain else None
    return (after or first)[0]


def final_letter(answer: str) -> str | None:
    """The option letter of the last marked text that holds one, else the last lone one of the whole text.

    The words "I" and "A" are none. A small letter counts in brackets or behind "option".
    """
    *marked, whole = _candidates(answer)
    for text in marked:
        capitals = _SMALL_LETTER.sub(lambda small: small[0].upper(), text)
        for found in _LETTER.finditer(capitals):
            if not (_PHRASE.match(capitals, found.end()) and _is_word(found, capitals)):
                return found[1]
    for text in (whole, _SMALL_LETTER.sub(lambda small: small[0].upper(), whole)):
        lone = [found[1] for found in _LETTER.finditer(text) if not _is_word(found, text)]
        if lone:
            return lone[-1]
    return None


def _is_word(found: re.Match[str], text: str) -> bool:
    """Whether a lone A or I is the article or the pronoun, and no option."""
    if found[0] not in ("A", "I"):
        return False  # another letter, or in brackets
    before = text[max(0, found.start() - 40) : found.start()]  # enough, and no more than linear in the text
    listed = text.startswith((".", ":"), found.end()) and not before.rpartition("\n")[2].strip()
    named = _NAMED.search(before)
    if named and named[1]:  # "answer: I don't know" names none
        return _PHRASE.match(text, found.end()) is not None
    return not (named or _ENDS.match(text, found.end()) or listed)


def _candidates(answer: str) -> list[str]:
    box = last_box(answer)
    return [*([TEXT.sub(r"\1", box)] if box is not None else []), *marked_texts(answer), answer]


def _value(text: str) -> Decimal | None:
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("−", "-")
    plain = plain.lstrip("$€£% ").rstrip("$€£% .")  # a point in front is part of the number
    if "_" in plain:  # a base, as in 52_8; Python would read over it
        return None
    numerator, _, denominator = plain.partition("/")
    try:
        value = Decimal(numerator)
        return value / Decimal(denominator) if denominator else value
    except (InvalidOperation, ZeroDivisionError):
        return None
