"""Masks personal data that has a recognisable form before a question is logged."""

from __future__ import annotations

import ipaddress
import re
import unicodedata

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"
_GROUP = "[0-9A-Fa-f]{0,4}"
_ADDRESS = re.compile(
    rf"(?<![\w.:])(?:{_IPV4}|{_GROUP}(?::{_GROUP}){{1,6}}:{_IPV4}|{_GROUP}(?::{_GROUP}){{2,7}}(?![\w:]))"
)
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d(?:[ \-./()]{0,3}\d){6,18}(?!\w)")
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 7, 15
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
_SIGNS = {
    # full-width and other forms of the signs in addresses and numbers
    "\uff20": "@",
    "\uff0b": "+",
    "\uff08": "(",
    "\uff09": ")",
    "\uff1a": ":",
    "\u2236": ":",
    "\uff0f": "/",
    "\u2044": "/",
    "\u2215": "/",
    "\uff0e": ".",
    "\u3002": ".",
    "\u2024": ".",
    "\u00b7": ".",
    "\u2022": ".",
    "\u2212": "-",
    "\u2043": "-",
}


def mask(text: str) -> str:
    """Replaces e-mail addresses, IP addresses, payment card and phone numbers by placeholders.

    Spaces, dashes, digits and signs count in all their Unicode forms, and invisible characters are ignored.
    Only the form is recognised. Names, street addresses, account and identity numbers in other forms,
    spelled-out numbers and any other personal detail of a question remain.
    """
    pieces, plain = _plain(text)
    for pattern, replace in ((_EMAIL, _mask_email), (_ADDRESS, _mask_ip), (_DIGITS, _mask_number)):
        new_pieces: list[str] = []
        new_plain, end = "", 0
        for match in pattern.finditer(plain):
            start, label = match.start(), replace(match)
            if label != match[0]:
                new_pieces += [*pieces[end:start], *label]
                new_plain += plain[end:start] + label
                end = match.end()
        pieces, plain = new_pieces + pieces[end:], new_plain + plain[end:]
    return "".join(pieces)


def _plain(text: str) -> tuple[list[str], str]:
    """Returns the pieces of a text, and its plain form with one character for each piece.

    An invisible character belongs to the piece before it.
    """
    if text.isascii():
        return list(text), text
    pieces, plain = [""], ["\n"]
    for c in text:
        if (kind := unicodedata.category(c)) == "Cf":
            pieces[-1] += c
            continue
        pieces.append(c)
        if kind == "Zs":
            c = " "
        elif kind == "Pd":
            c = "-"
        elif kind == "Nd":
            c = str(unicodedata.decimal(c))
        plain.append(_SIGNS.get(c, c))
    return pieces, "".join(plain)


def _mask_email(match: re.Match[str]) -> str:
    return "[email]"


def _mask_ip(match: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def _mask_number(match: re.Match[str]) -> str:
    number = match[0]
    if (masked := _mask_card(number)) is not None:
        return masked
    digits = sum(c.isdigit() for c in number)
    # A plain run of digits is as likely an amount or a year; a phone number has a prefix or separators.
    formatted = number.startswith(("+", "0", "(")) or any(c in " -./()" for c in number)
    phone_length = MIN_PHONE_DIGITS <= digits <= MAX_PHONE_DIGITS
    if phone_length and formatted and not _DATE.fullmatch(number):
        return "[phone]"
    return number


def _mask_card(number: str) -> str | None:
    """Masks a card number, with or without digits around it such as an expiry date. None: there is none."""
    groups = [group.span() for group in re.finditer(r"\d+", number)]
    for first, (start, _) in enumerate(groups):
        for _, end in reversed(groups[first:]):
            digits = [int(c) for c in number[start:end] if c.isdigit()]
            if 13 <= len(digits) <= 19 and _passes_luhn(digits):
                whole = first == 0 and end == groups[-1][1]
                return "[card]" if whole else f"{number[:start]}[card]{number[end:]}"
    return None


def _passes_luhn(digits: list[int]) -> bool:
    doubled = [d if at % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for at, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
