"""Personal data that can be told by its form, replaced by its kind before a question is kept."""

from __future__ import annotations

import ipaddress
import re

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]))"
)
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d(?:[ \-./()]{0,2}\d){6,18}(?!\w)")
SHORTEST_PHONE, LONGEST_PHONE = 7, 15
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")


def mask(text: str) -> str:
    """The text with e-mail addresses, IP addresses, payment card and phone numbers as placeholders.

    It goes by form alone: names, street addresses, account and identity numbers in other forms, numbers in
    words and everything that a question tells about a person stay.
    """
    text = _EMAIL.sub("[email]", text)
    text = _ADDRESS.sub(_ip, text)
    return _DIGITS.sub(_number, text)


def _ip(match: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def _number(match: re.Match[str]) -> str:
    found = match[0]
    digits = [int(c) for c in found if c.isdigit()]
    if 13 <= len(digits) <= 19 and _luhn(digits):
        return "[card]"
    # A bare row of digits is as likely an amount or a year; a phone number has a sign of being one.
    written = found.startswith(("+", "0", "(")) or any(c in " -./()" for c in found)
    if SHORTEST_PHONE <= len(digits) <= LONGEST_PHONE and written and not _DATE.fullmatch(found):
        return "[phone]"
    return found


def _luhn(digits: list[int]) -> bool:
    doubled = [d if at % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for at, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
