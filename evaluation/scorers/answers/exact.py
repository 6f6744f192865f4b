"""Compares the final answer with the reference: a number, an option letter or LaTeX, without a judge."""

from __future__ import annotations

import re
from fractions import Fraction

from evaluation.scorers.answers.latex import TEXT, equivalent, final_expression, last_box, marked_texts
from evaluation.scorers.answers.numbers import NUMBER, arithmetic_to_latex, is_arithmetic, parse_number
from evaluation.scorers.answers.segments import final_part

ANSWERS_VERSION = "exact-5"

# 5 x 3 = 15: the number after `=` counts, if it is one number and not another sum.
_TERM = r"(?:[^A-Za-z=]|(?<=[\s\d)])[xX](?=\s*[$(\d]))*"
_SUM = re.compile(
    rf"{_TERM}(?:={_TERM})*=(?=\s*[$€£]?[-+−]?[\d.,/]*\d\s*(?:[A-Za-z%.,;:!)$\\]|\*\*\D|\*\*$|$))"
)
# "After 3 days, she has 12" and "12 after 3 days": the 3 is not the answer.
_CIRCUMSTANCE = re.compile(
    r"\b(?:after|before|for|in|within|during|out of|from|since|every)(?: the)? \W*$", re.IGNORECASE
)
_NEGATED = re.compile(r"\b(?:not|never|n['’]t)\W*$", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_NAMED = re.compile(r"\b(?:option|choice|letter|(answer))\W*$", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z'’])\(?([A-Z])\)?(?![A-Za-z'’]|-\w)")
_SMALL_LETTER = re.compile(r"(?<![A-Za-z'’])\([a-z]\)|\b[Oo]ption [a-z]\b")
_REFERENCE_LETTER = re.compile(r"\(?([A-Z])\)?\.?")
_UNIT = re.compile(r" [A-Za-z]{2,}(?: [A-Za-z]{2,}){0,2}\.?")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
MAX_WORDS = 5  # of a reference without a marked answer; a longer one is prose
# "Answer: b" and "b) Paris", but not "a good choice" (see `_PHRASE`), "i'm" or "x = 5".
_SMALL_ANSWER = re.compile(r"[\s*_\"(\[$]*([a-z])(?=[\s.,;:)\]*_\"!$]|$)(?!\s*[=<>+/^])")
_SMALL_START = re.compile(r"\A\W*([a-h])(?:[).:]\s|\W*\Z)")
_ENDS = re.compile(r"[\s.!*]*\Z")
# "A good choice", "I think", but not "A because it floats".
_PHRASE = re.compile(
    r"\s+(?!(?:and|are|as|at|because|but|by|due|for|from|given|has|here|if|in|is|it|not|of|on|or|since|that|the|"
    r"to|we|when|where|which|while|with)\b)[a-z]"
)


def is_right(answer: str, reference: str) -> bool | None:
    """Returns whether the final answer equals the reference; None if the reference has an unknown form.

    The last `\\boxed{}`, else the last `####`, "answer is" or "answer:" that contains an answer, takes
    precedence over the last number, letter or formula in the text. LaTeX that differs from the reference as
    text needs math-verify, which comes with `ascl[eval]`.
    """
    # LaTeX writes 1{,}234 to avoid a space after the comma.
    target = reference_answer(reference.replace("{,}", ","))
    answer = final_part(answer).replace("{,}", ",")
    if not target:
        return None
    if re.fullmatch(r"[A-Z]", target):
        return final_letter(answer) == target
    number = parse_number(target)
    if number is not None and final_number(answer) == number:
        return True
    expression = final_expression(answer)
    if number is not None:
        # 10*5 and \\frac{100}{2} are 50 too; without math-verify such an answer counts as wrong.
        return expression is not None and _has_value(expression, number, target)
    return equivalent(expression or "", target)


def reference_answer(reference: str) -> str | None:
    """Returns the final answer of a reference, which may be a worked solution; None for an unknown form."""
    text = reference.strip()
    if (box := last_box(text)) is not None:
        text = box
    elif marked := marked_texts(text):
        text = marked[0].strip()
        text = text if parse_number(text) is None else text.rstrip(".")
    if letter := _REFERENCE_LETTER.fullmatch(text):
        return letter[1]
    if (number := NUMBER.match(text)) and _UNIT.fullmatch(text, number.end()):
        return number[0]
    is_prose = "####" in text or "\n" in text or len(_WORD.findall(TEXT.sub("", text))) > MAX_WORDS
    return None if is_prose else text


def _has_value(expression: str, number: Fraction, target: str) -> bool:
    """Returns whether a formula or an arithmetic expression equals the number of the reference."""
    if is_arithmetic(expression):
        expression = arithmetic_to_latex(expression)
    elif not re.search(r"[\\^]", expression):
        return False
    plain = target if target.replace(".", "").isdecimal() else f"{number.numerator}/{number.denominator}"
    return equivalent(expression, plain) is True


def final_number(answer: str) -> Fraction | None:
    """Returns the number in the last marked text that contains one, else the last of all, else None."""
    *marked, full_text = _candidates(answer)
    for text in marked:
        if re.search(r"[\\^]", re.sub(r"\\[$%()\[\]]", "", text)):
            return None  # a formula: its first number is not its value
        if is_arithmetic(text):
            return None
        if numbers := [number for number in NUMBER.finditer(text) if not _is_negated(number, text)]:
            return parse_number(_select_number(numbers, text))
    unmarked = NUMBER.findall(full_text)
    return parse_number(unmarked[-1]) if unmarked else None


def _is_negated(number: re.Match[str], text: str) -> bool:
    """Returns whether a text denies a number, as in "not 5 but 7"."""
    return _NEGATED.search(text[max(0, number.start() - 10) : number.start()]) is not None


def _select_number(numbers: list[re.Match[str]], text: str) -> str:
    """Selects the answer among the numbers of a marked text: the first, or the result of a sum it begins."""
    end = _SENTENCE.search(text, numbers[0].end())
    sentence = [number for number in numbers if end is None or number.start() < end.start()]
    first = next(
        (number for number in sentence if not _CIRCUMSTANCE.search(text[: number.start()])), numbers[0]
    )
    chain = _SUM.match(text, first.start())
    after = NUMBER.search(text, chain.end()) if chain else None
    return (after or first)[0]


def final_letter(answer: str) -> str | None:
    """Returns the option letter in the last marked text that contains one, else the last lone one.

    The words "I" and "A" do not count. A lower-case letter counts in brackets, after "option", or as the
    whole answer.
    """
    *marked, full_text = _candidates(answer)
    for text in marked:
        small = _SMALL_ANSWER.match(text)
        if small and not _PHRASE.match(text, small.end()):
            return small[1].upper()
        capitals = _SMALL_LETTER.sub(lambda small: small[0].upper(), text)
        for match in _LETTER.finditer(capitals):
            if not (_PHRASE.match(capitals, match.end()) and _is_word(match, capitals)):
                return match[1]
    if start := _SMALL_START.match(full_text):
        return start[1].upper()
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
