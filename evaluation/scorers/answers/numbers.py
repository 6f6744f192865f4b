"""Finds and parses numbers: integers, decimals, fractions, mixed numbers and scientific notation."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_MIXED = rf"{_INTEGER}(?: and)?[ \u00a0]\d+/\d+(?![\d/])|{_INTEGER}?[ \u00a0]?[{_VULGAR}]"
_DECIMAL = rf"{_INTEGER}(?:\.\d+)?(?:[eE][-+]?\d{{1,3}}(?!\w))?"
NUMBER = re.compile(rf"(?=[-+−.\d{_VULGAR} \u00a0])[-+−]?(?:{_MIXED}|{_DECIMAL}(?:/\d+)?|\.\d+)")
_MIXED_PARTS = re.compile(rf"(\d+)?(?: and)?[ \u00a0]?(?:(\d+)/(\d+)|([{_VULGAR}]))")
_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_OPERATOR = r"\s*(?:\*\*|[-+*×·÷−^]|(?<=[\d\s)])[xX](?=[\s\d(]))\s*"
_TERM = r"\(?[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)\)?!?"
_ARITHMETIC = re.compile(rf"{_TERM}(?:{_OPERATOR}{_TERM})+|{_TERM}(?<=!)")
_LATEX = (
    ("**", "^"),
    ("×", r"\times "),
    ("x", r"\times "),
    ("X", r"\times "),
    ("·", r"\cdot "),
    ("÷", r"\div "),
)


def parse_number(text: str) -> Fraction | None:
    """Parses a text that consists of one number, with or without a currency or percent sign."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).replace("−", "-")
    plain = plain.lstrip("$€£% ").rstrip("$€£% .")  # a leading point is part of the number
    sign = -1 if plain.startswith("-") else 1
    try:
        if mixed := _MIXED_PARTS.fullmatch(plain.lstrip("+-")):
            integer, numerator, denominator, vulgar = mixed.groups()
            if vulgar:
                part = Fraction(unicodedata.numeric(vulgar)).limit_denominator(10)
            else:
                part = Fraction(int(numerator), int(denominator))
            # "12/3" is a fraction; only a space separates the whole part of a mixed number.
            if vulgar or integer is None or re.match(r"\d+(?: and)?[ \u00a0]", plain.lstrip("+-")):
                return sign * (int(integer or 0) + part)
        numerator, _, denominator = plain.partition("/")
        if not _PLAIN.fullmatch(numerator) or (denominator and not _PLAIN.fullmatch(denominator)):
            return None
        return Fraction(numerator) / (Fraction(denominator) if denominator else 1)
    except (ValueError, ZeroDivisionError):  # ValueError: more digits than Python converts
        return None


def is_arithmetic(text: str) -> bool:
    """Returns whether a text is an unevaluated expression of numbers, such as `10*5` or `5!`."""
    return len(text) <= 200 and _ARITHMETIC.fullmatch(text.strip(" .$")) is not None


def arithmetic_to_latex(text: str) -> str:
    """Converts the operators of an arithmetic expression to LaTeX."""
    for operator, latex in _LATEX:
        text = text.replace(operator, latex)
    return text.strip(" .$")
