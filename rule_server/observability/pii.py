"""Masks personal data that has a recognisable form before a question is logged."""

from __future__ import annotations

import ipaddress
import re

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]))"
)
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d(?:[ \-./()]{0,2}\d){6,18}(?!\w)")
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 7, 15
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")


def mask(text: str) -> str:
    """Replaces e-mail addresses, IP addresses, payment card and phone numbers by placeholders.

    It recognises form only. Names, street addresses, account and identity numbers in other forms, spelled-out
    numbers and any other personal detail of a question remain.
    """
    text = _EMAIL.sub("[email]", text)
    text = _ADDRESS.sub(_mask_ip, text)
    return _DIGITS.sub(_mask_number, text)


def _mask_ip(match: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def _mask_number(match: re.Match[str]) -> str:
    number = match[0]
    digits = [int(c) for c in number if c.isdigit()]
    if 13 <= len(digits) <= 19 and _passes_luhn(digits):
        return "[card]"
    # A plain run of digits is as likely an amount or a year; a phone number has a prefix or separators.
    formatted = number.startswith(("+", "0", "(")) or any(c in " -./()" for c in number)
    phone_length = MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS
    if phone_length and formatted and not _DATE.fullmatch(number):
        return "[phone]"
    return number


def _passes_luhn(digits: list[int]) -> bool:
    doubled = [d if at % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for at, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
