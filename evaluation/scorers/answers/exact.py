"""Compares the final answer with the reference: a number, an option letter or LaTeX, without a judge."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from evaluation.scorers.answers.latex import TEXT, equivalent, final_expression, last_box, marked_texts

ANSWERS_VERSION = "exact-4"

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+−]?\.\d+")
# 5 x 3 = 15: the number after `=` counts, if it is one number and not another sum.
_TERM = r"(?:[^A-Za-z=]|(?<=[\s\d)])[xX](?=\s*[$(\d]))*"
_SUM = re.compile(
    rf"{_TERM}(?:={_TERM})*=(?=\s*[$€£]?[-+−]?[\d.,/]*\d\s*(?:[A-Za-z%.,;:!)$\\]|\*\*\D|\*\*$|$))"
)
# "After 3 days, she has 12" and "12 after 3 days": the 3 is not the answer.
_CIRCUMSTANCE = re.compile(
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
    """Returns whether the final answer equals the reference; None if the reference has an unknown form.

    The last `\\boxed{}`, else the last `####`, "answer is" or "answer:" that holds an answer, takes
    precedence over the last number, letter or formula of the text. LaTeX with another text than the reference
    needs math-verify, which comes with `ascl[eval]`.
    """
    # LaTeX writes 1{,}234 to avoid a space after the comma.
    target, answer = (text.replace("{,}", ",") for text in (reference.strip(), answer))
    if not target:
        return None
    if re.fullmatch(r"[A-Z]", target):
        return final_letter(answer) == target
    number = _value(target)
    if number is not None and final_number(answer) == number:
        return True
    expression = final_expression(answer)
    if number is not None:
        # 24/2 and \\frac{24}{2} are 12 too; without math-verify such an answer counts as wrong.
        return expression is not None and "\\" in expression and equivalent(expression, target) is True
    return equivalent(expression or "", target)


def final_number(answer: str) -> Decimal | None:
    """Returns the number of the last marked text that holds one, else the last of all; None without one."""
    *marked, full_text = _candidates(answer)
    for text in marked:
        if re.search(r"[\\^]", re.sub(r"\\[$%()\[\]]", "", text)):
            return None  # a formula: its first number is not its value
        if numbers := list(_NUMBER.finditer(text)):
            return _value(_select_number(numbers, text))
    unmarked = _NUMBER.findall(full_text)
    return _value(unmarked[-1]) if unmarked else None


def _select_number(numbers: list[re.Match[str]], text: str) -> str:
    """Selects the answer among the numbers of a marked text: the first, or the result of a sum it begins."""
    end = _SENTENCE.search(text, numbers[0].end())
    sentence = [number for number in numbers if end is None or number.start() < end.start()]
    first = next(
        (number for number in sentence if not _CIRCUMSTANCE.search(text[: number.start()])), numbers[0]
    )
    chain = _SUM.match(text, first.start())
    after = _NUMBER.search(text, chain.end()) if chain else None
    return (after or first)[0]


def final_letter(answer: str) -> str | None:
    """Returns the option letter of the last marked text that holds one, else the last lone one of the text.

    The words "I" and "A" do not count. A small letter counts in brackets or after "option".
    """
    *marked, full_text = _candidates(answer)
    for text in marked:
        capitals = _SMALL_LETTER.sub(lambda small: small[0].upper(), text)
        for match in _LETTER.finditer(capitals):
            if not (_PHRASE.match(capitals, match.end()) and _is_word(match, capitals)):
                return match[1]
    for text in (full_text, _SMALL_LETTER.sub(lambda small: small[0].upper(), full_text)):
        lone = [match[1] for match in _LETTER.finditer(text) if not _is_word(match, text)]
        if lone:
            return lone[-1]
    return None


def _is_word(letter: re.Match[str], text: str) -> bool:
    """Returns whether a lone A or I is the article or the pronoun rather than an option."""
    if letter[0] not in ("A", "I"):
        return False  # another letter, or in brackets
    before = text[max(0, letter.start() - 40) : letter.start()]  # bounded, to stay linear in the text
    is_list_item = text.startswith((".", ":"), letter.end()) and not before.rpartition("\n")[2].strip()
    named = _NAMED.search(before)
    if named and named[1]:  # "answer: I don't know" names no option
        return _PHRASE.match(text, letter.end()) is not None
    return not (named or _ENDS.match(text, letter.end()) or is_list_item)


def _candidates(answer: str) -> list[str]:
    box = last_box(answer)
    return [*([TEXT.sub(r"\1", box)] if box is not None else []), *marked_texts(answer), answer]


def _value(text: str) -> Decimal | None:
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("−", "-")
    plain = plain.lstrip("$€£% ").rstrip("$€£% .")  # a leading point is part of the number
    if "_" in plain:  # a base, as in 52_8; Python would ignore the underscore
        return None
    numerator, _, denominator = plain.partition("/")
    try:
        value = Decimal(numerator)
        return value / Decimal(denominator) if denominator else value
    except (InvalidOperation, ZeroDivisionError):
        return None
