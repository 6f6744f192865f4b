"""Explains why the keys of a file are invalid: the line, the reason and the smallest fix."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from rule_server.rulebook.diagnosis.mistakes import LIST_KEYS, quote, show
from rule_server.rulebook.diagnosis.repair import Fault, YamlSource

Model = TypeVar("Model", bound=BaseModel)
DATE_KEYS = ("review_by", "reviewed")
FORMATS = {
    "version": "write three numbers, such as 1.0.0",
    "name": "write lowercase letters, digits, `.`, `_` and `-`, such as my-rules",
    "id": "write lowercase letters, digits and hyphens, such as banking or banking.card-limits",
}
"""Fixes of values that must have a certain form, by key."""
_MONTHS = ("jan", "feb", "m[aä]r", "apr", "ma[iy]", "jun", "jul", "aug", "sep", "o[ck]t", "nov", "de[cz]")


class RuleFileError(Exception):
    """One or more problems of a file, each with its fix and, where it is known, its line."""

    def __init__(self, *problems: tuple[str, str] | Fault) -> None:
        self.problems = tuple(Fault(*problem) for problem in problems)


def validate(kind: type[Model], data: Mapping[str, Any], source: YamlSource) -> Model:
    """Returns the model of the keys. Raises RuleFileError with all problems."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        items = error.errors()
    unknown = [item["loc"] for item in items if _unknown(item)]
    meant = {loc[-1]: _similar(loc, kind, data) for loc in unknown}
    faults = [
        _explain(kind, item, source, meant.get(item["loc"][-1]))
        for item in items
        if not (item["type"] == "missing" and item["loc"][-1] in meant.values())
    ]
    raise RuleFileError(*sorted(faults, key=lambda fault: fault.line or 1 << 30))


def mostly_missing(kind: type[BaseModel], data: Mapping[str, Any]) -> bool:
    """Returns whether most required keys are missing, so that the text was hardly understood."""
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    return sum(name not in data for name in required) * 2 > len(required)


def _unknown(item: Any) -> bool:
    return bool(item["type"] == "extra_forbidden")


def _similar(loc: tuple[str | int, ...], kind: type[BaseModel], data: Any) -> str | None:
    """Returns the missing key that an unknown one probably means."""
    for part in loc[:-1]:
        data = data[part]
    free = [key for key in _fields(kind, loc) if key not in data]
    name = str(loc[-1]).casefold().replace("-", "_")
    found = difflib.get_close_matches(name, free, 1, 0.7)
    return found[0] if found else None


def _fields(kind: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Returns the keys that are allowed at the place of a key."""
    for part in loc[:-1]:
        if isinstance(part, str):
            inner = kind.model_fields[part].annotation
            options = [inner, *get_args(inner)]
            kind = next((at for at in options if isinstance(at, type) and issubclass(at, BaseModel)), kind)
    return [key for key in kind.model_fields if key != "body"]


def _explain(kind: type[BaseModel], item: Any, source: YamlSource, meant: str | None) -> Fault:
    loc = item["loc"]
    name = ".".join(str(part) for part in loc)
    line = source.lines.get(loc) or source.lines.get(loc[:-1])
    if item["type"] == "missing":
        return Fault(f"`{name}` is missing", "add it to the front matter", line)
    where = f" (line {line})" if line is not None else ""
    if _unknown(item):
        keys = ", ".join(_fields(kind, loc))
        at = f" in line {line}" if line is not None else ""
        to = f" to `{meant}`" if meant else ""
        fix = f"remove it or correct its spelling{to}{at} (known: {keys})"
        return Fault(f"unknown key `{name[:60]}`", fix, line)
    value = item["input"]
    text = source.texts.get(line or 0, "")
    if value is None:
        comment = re.search(r"[:-]\s+#", text) is not None
        fix = "write its items below it, each after `- `" if name in LIST_KEYS else "write it after the colon"
        fix = "put its text in quotes: `#` begins a comment" if comment else fix
        return Fault(f"`{name}` is empty{where}", fix, line)
    hint = " (YAML reads a bare yes or no as a boolean: quote it)" if isinstance(value, bool) else ""
    problem = f"`{name}` cannot be {_quoted(value)}{hint}{where}"
    return Fault(problem, _advice(item, loc, text) or _reason(item), line)


def _reason(item: Any) -> str:
    reason = str(item["msg"].removeprefix("Value error, "))
    return reason[:1].lower() + reason[1:]


def _advice(item: Any, loc: tuple[str | int, ...], line: str) -> str | None:
    """Returns the fix of a common mistake in a line, else None."""
    value, name = item["input"], str(loc[-1])
    if name in DATE_KEYS:
        return _date_advice(value)
    if name in FORMATS and item["type"] in ("string_type", "string_pattern_mismatch"):
        return FORMATS[name]
    if item["type"] in ("model_type", "model_attributes_type") and name == "examples":
        return "write `benign:` and `harmful:` below it, each with a list (`[]` for none)"
    if item["type"] == "string_type":
        lead = f"{name}: " if isinstance(loc[-1], str) else "- "
        if isinstance(value, dict) and len(value) == 1:
            [(key, text)] = value.items()
            text = f"{key}: {'' if text is None else text}"
            return f"its colon makes it `key: value`; put it in quotes: {show(lead + quote(text))}"
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return f"put it in quotes: {show(lead + quote('[' + ', '.join(value) + ']'))}"
        if not isinstance(value, dict | list):
            written = line.partition(":" if isinstance(loc[-1], str) else "-")[2].partition(" #")[0].strip()
            return f"put the text in quotes: {show(lead + quote(written or _raw(value)))}"
    if item["type"] == "list_type" and isinstance(value, str):
        if re.match(r"-\S", value):
            return "put a space after each `-`"
        return f"write each item in a line of its own: {show('- ' + re.split('[,;] ', value)[0])}"
    if item["type"] == "too_short" and any(" - " in part for part in value if isinstance(part, str)):
        return "begin the `-` of every item at the same column: one item continues the item above it"
    return None


def _raw(value: object) -> str:
    """Returns a scalar roughly as it was written."""
    try:
        return str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # an integer of more digits than Python converts
        return "..."


def _date_advice(value: object) -> str:
    fix = "write an existing day as YEAR-MONTH-DAY, such as 2026-12-31"
    if isinstance(value, datetime.datetime):
        return f"write the day alone: {value.date()}"
    text = _raw(value).strip().casefold()
    day = _parse_day(text)
    return f"write {day}: the year first, then month and day" if day is not None else fix


def _parse_day(text: str) -> datetime.date | None:
    """Returns the day that a text means, if it can only mean one."""
    text = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", text)
    if match := re.fullmatch(r"(\d{4})[-./](\d{1,2})[-./](\d{1,2})\.?", text):
        year, month, day = match.groups()
    elif match := re.fullmatch(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4}|\d\d)", text):
        day, month, year = match.groups()
    elif match := re.fullmatch(r"(\d{1,2})[-/](\d{1,2})[-/](\d{4})", text):
        day, month, year = match.groups()
        if int(day) <= 12 < int(month):
            day, month = month, day
        elif int(day) <= 12 and day != month:
            return None  # 03/04/2026 is in March or in April
    else:
        return _named_month(text)
    return _day(int(year) + (2000 if len(year) == 2 else 0), int(month), int(day))


def _named_month(text: str) -> datetime.date | None:
    words = re.findall(r"\d+|[a-zä]+", text)
    months = [at for at, name in enumerate(_MONTHS, 1) for word in words if re.match(name, word)]
    numbers = [int(word) for word in words if word.isdigit() and len(word) <= 4]
    years = [number for number in numbers if number > 1900]
    days = [number for number in numbers if number <= 31]
    if len(months) == len(years) == len(days) == 1:
        return _day(years[0], months[0], days[0])
    return None


def _day(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


def _quoted(value: object) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:
        return "so long a number"
