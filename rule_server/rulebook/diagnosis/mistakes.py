"""Guesses at common mistakes in YAML that people write: colons, quotes, tabs, indentation, repeated keys."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rule_server.rulebook.front_matter import FrontMatterError
from rule_server.rulebook.model import INVISIBLE, Category, Examples, FolderManifest, FrontMatter

EXPECT_KEYS = {"cases", "question", "first", "includes", "excludes", "nothing"}
TOP_KEYS = {*FrontMatter.model_fields, *Category.model_fields, *FolderManifest.model_fields}
LIST_KEYS = {"queries", "tags", "references", "mlcommons", "retire", "includes", "excludes"}
LIST_KEYS |= set(Examples.model_fields)
KNOWN_KEYS = TOP_KEYS | EXPECT_KEYS | set(Examples.model_fields)
KEY = re.compile(r"(?P<lead>[ \t]*(?:-[ \t]+)?)(?P<key>[A-Za-z_][\w-]*)[ \t]*:(?:[ \t]+(?P<value>.*))?$")
ITEM = re.compile(r"(?P<lead>[ \t]*-[ \t]+)(?P<value>.*)$")
HEADING = re.compile(r"#{1,6}[ \t]*(fine|not fine|how to answer)[ \t:]*$", re.IGNORECASE)
_FENCE = re.compile(
    r"[ \t]*(-{2,}|-*[\u2010-\u2015][-\u2010-\u2015]*|\+{3,}|\*{3,}|_{3,}|={3,}|```[a-z]*)[ \t]*$"
)
_COLON = re.compile(r":(\s|$)")
_CLOSED = re.compile(r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*')[ \t]*(#.*)?$")
_SPECIAL = "@`%&*!|>[]{},?#"
_WIDE = "\u00a0\u2007\u202f\u3000"
"""Spaces that are not spaces to YAML."""
MAX_SHOWN = 90


@dataclass(frozen=True)
class Guess:
    """A possible mistake."""

    at: int
    """Index of its line."""
    reason: str
    """The fault; empty for a repair that another check reports."""
    advice: str
    """The smallest fix. `{n}` stands for the number of line n + 1."""
    lines: list[str]
    """All lines, with the fix applied. Their number does not change."""
    others: tuple[int, ...] = ()
    """Indices of the lines that `advice` names."""

    def fix(self, first: int) -> str:
        """Returns the advice. `first` is the number of the first line."""
        return self.advice.format(*(at + first for at in self.others)) if self.others else self.advice


def looks_like_fence(line: str) -> bool:
    """Returns whether a line was meant as `---`."""
    return _FENCE.fullmatch(line) is not None


def guesses(lines: list[str], error: FrontMatterError) -> Iterator[Guess]:
    """Yields guesses at the mistake behind an error, the likeliest first."""
    if not lines:
        return
    if "occurs twice" in str(error):
        yield from _repeated(lines, error)
        return
    yield from _tabs(lines)
    at = len(lines) - 1 if error.line is None else min(error.line, len(lines) - 1)
    before = next((n for n in range(at - 1, -1, -1) if lines[n].strip()), at)
    start = at if error.start is None else min(error.start, len(lines) - 1)
    yield from _open_quotes(lines, at)
    rejected = error.reason in ("an alias is not allowed", "a tag is not allowed")
    for n in dict.fromkeys((start, at, before)):
        for find in _FINDERS:
            for guess in find(lines, n):
                yield replace(guess, reason=f"{error.reason}: {guess.reason}") if rejected else guess
    yield from _dates(lines)
    yield from _invisible(lines)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _change(lines: list[str], at: int, line: str) -> list[str]:
    return [*lines[:at], line, *lines[at + 1 :]]


def show(line: str) -> str:
    """Returns a line of a file as a fix quotes it."""
    text = line.strip()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def quote(text: str) -> str:
    """Returns a text in YAML quotes."""
    text = text.strip()
    if '"' not in text and "\\" not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def _value(line: str) -> tuple[str, str, str] | None:
    """Returns what precedes the value of a line, its key (empty for a list item), and the value."""
    match = KEY.match(line)
    if match and match["value"] and ("-" not in match["lead"] or match["key"] in KNOWN_KEYS):
        return line[: match.start("value")], match["key"], match["value"].strip()
    match = ITEM.match(line)
    return (match["lead"], "", match["value"].strip()) if match and match["value"].strip() else None


def _name(key: str) -> str:
    return f"the text of `{key}`" if key else "the text of the list item"


def _tabs(lines: list[str]) -> Iterator[Guess]:
    marked = [at for at, line in enumerate(lines) if "\t" in line[: len(line) - len(line.lstrip("\t -"))]]
    if not marked:
        return
    names = "a tab" if len(marked) == 1 else f"tabs in {len(marked)} lines, of which this is the first"
    for spaces in ("  ", ""):
        changed = list(lines)
        for at in marked:
            text = lines[at].lstrip("\t -")
            lead = lines[at][: len(lines[at]) - len(text)].replace("\t", spaces)
            above = ITEM.match(changed[at - 1]) if at else None
            if above is not None and "-" in lead:
                lead = above["lead"]
            changed[at] = (lead + " " if lead.endswith("-") else lead) + text
        yield Guess(marked[0], f"it is indented with {names}", "use spaces in place of tabs", changed)


def _characters(lines: list[str], at: int) -> Iterator[Guess]:
    """Wide colons and spaces that are not spaces to YAML."""
    spaces = rf"[\s{_WIDE}]*"
    match = re.match(rf"(\s*(?:-\s+)?)([A-Za-z_][\w-]*){spaces}([:：]){spaces}(.*)$", lines[at])
    if match and (match[3] == "：" or any(c in lines[at][: match.start(4)] for c in _WIDE)):
        fixed = f"{match[1]}{match[2]}: {match[4]}".rstrip()
        what = "the wide colon `：`" if match[3] == "：" else "a no-break space"
        yield Guess(
            at, f"`{match[2]}` is followed by {what}", _written("type", fixed), _change(lines, at, fixed)
        )
    lead = re.match(rf"[\s{_WIDE}-]*", lines[at])
    if lead and any(c in lead[0] for c in _WIDE):
        fixed = re.sub(f"[{_WIDE}]", " ", lead[0]) + lines[at][lead.end() :]
        advice = "type ordinary spaces"
        yield Guess(at, "it is indented with no-break spaces", advice, _change(lines, at, fixed))


def _written(verb: str, line: str) -> str:
    return f"{verb}: {show(line)}"


def _quotes(lines: list[str], at: int) -> Iterator[Guess]:
    parts = _value(lines[at])
    if parts is None or parts[2][0] not in "\"'":
        return
    lead, key, value = parts
    mark = value[0]
    if _CLOSED.fullmatch(value):
        if mark == '"' and "\\" in value:
            fixed = lead + "'" + value[1:].rpartition('"')[0].replace("'", "''") + "'"
            reason = "`\\` has a meaning in double quotes"
            yield Guess(at, reason, _written("use single quotes", fixed), _change(lines, at, fixed))
        return
    count = value.count(mark)
    options = []
    if count == 1:
        options.append((f"the quote {mark} is not closed", "close it", value + mark))
    if count > 2 and value.endswith(mark):
        inner = value[1:-1].replace("''", "'") if mark == "'" else value[1:-1]
        options.append((f"a {mark} inside {_name(key)} ends the quotes", "use", quote(inner)))
    if count % 2 == 0:
        options.append((f"text follows the closing quote {mark}", "put all of it in quotes", quote(value)))
    options.append((f"the quote {mark} is not closed", "close it", quote(value[1:])))
    for reason, advice, text in options:
        yield Guess(at, reason, _written(advice, lead + text), _change(lines, at, lead + text))


def _open_quotes(lines: list[str], at: int) -> Iterator[Guess]:
    """Quotes that are not closed in their line, though the next line begins a key or an item."""
    for n in range(at + 1):
        parts = _value(lines[n])
        if parts is None or parts[2][0] not in "\"'" or parts[2].count(parts[2][0]) != 1:
            continue
        following = lines[n + 1] if n + 1 < len(lines) else ""
        if n + 1 >= len(lines) or KEY.match(following) or ITEM.match(following):
            yield from _quotes(lines, n)


def _block_end(lines: list[str], at: int) -> int:
    """Returns the index of the last line that continues the text of a line by its indentation."""
    depth = _depth(lines[at])
    end = at
    for n in range(at + 1, len(lines)):
        if not lines[n].strip() or _depth(lines[n]) <= depth or ITEM.match(lines[n]):
            break
        end = n
    return end


def _quoted(
    lines: list[str], at: int, lead: str, value: str, *, alone: bool = True
) -> Iterator[tuple[str, list[str]]]:
    """Yields a line in quotes, if `alone`, then it and the lines that continue it, with the changed lines."""
    fixed = lead + quote(value)
    end = _block_end(lines, at)
    if alone:
        yield _written("put it in quotes", fixed), _change(lines, at, fixed)
    if end > at:
        whole = " ".join([value, *(line.strip() for line in lines[at + 1 : end + 1])])
        yield (
            "put it in quotes from its first to its last word",
            [*lines[:at], lead + quote(whole), *[""] * (end - at), *lines[end + 1 :]],
        )


def _owner(lines: list[str], at: int) -> int:
    """Returns the index of the line whose text a line continues, else the line itself."""
    depth = _depth(lines[at])
    for n in range(at - 1, -1, -1):
        if lines[n].strip() and _depth(lines[n]) < depth:
            return n if _value(lines[n]) is not None and not ITEM.match(lines[at]) else at
    return at


def _colon(lines: list[str], at: int) -> Iterator[Guess]:
    for n in dict.fromkeys((at, _owner(lines, at))):
        parts = _value(lines[n])
        if parts is None or parts[2][0] in "\"'":
            continue
        lead, key, value = parts
        more = lines[n + 1 : _block_end(lines, n) + 1]
        if any(_is_key(line, known) for line in more for known in TOP_KEYS):
            continue
        if not _COLON.search(" ".join([value, *(line.strip() for line in more)])):
            continue
        for advice, changed in _quoted(lines, n, lead, value, alone=bool(_COLON.search(value))):
            yield Guess(n, f"{_name(key)} contains a colon", advice, changed)


def _special(lines: list[str], at: int) -> Iterator[Guess]:
    parts = _value(lines[at])
    if parts is None:
        return
    lead, key, value = parts
    for opening, closing, keys in (("[", "]", LIST_KEYS), ("{", "}", {"examples"})):
        if value[0] == opening and closing not in value and key in keys:
            fixed = lead + value + closing
            reason = f"the `{opening}` of `{key}` is not closed"
            yield Guess(at, reason, _written("close it", fixed), _change(lines, at, fixed))
    if value[0] in _SPECIAL or value.startswith("- "):
        for advice, changed in _quoted(lines, at, lead, value):
            reason = f"{_name(key)} begins with {value[0]!r}, a special character"
            yield Guess(at, reason, advice, changed)


def _spacing(lines: list[str], at: int) -> Iterator[Guess]:
    """Missing spaces and colons."""
    line = lines[at]
    match = re.match(r"(\s*(?:-\s+)?)([a-z_]+):(\S.*)$", line)
    if match and match[2] in KNOWN_KEYS:
        fixed = f"{match[1]}{match[2]}: {match[3]}"
        reason = f"there is no space after `{match[2]}:`"
        yield Guess(at, reason, _written("write", fixed), _change(lines, at, fixed))
    match = re.match(r"(\s*)-([^\s-].*)$", line)
    if match:
        fixed = f"{match[1]}- {match[2]}"
        yield Guess(at, "there is no space after `-`", _written("write", fixed), _change(lines, at, fixed))
    match = re.match(r"(\s*)([a-z_]+)(?:\s*[=;]\s*|\s+|$)(.*)$", line)
    if match and match[2] in KNOWN_KEYS and not any(_is_key(other, match[2]) for other in lines):
        fixed = f"{match[1]}{match[2]}: {match[3]}".rstrip()
        reason = f"there is no colon after `{match[2]}`"
        yield Guess(at, reason, _written("write", fixed), _change(lines, at, fixed))


def _is_key(line: str, key: str) -> bool:
    match = KEY.match(line)
    return match is not None and match["key"] == key


def _unindented(lines: list[str], at: int) -> Iterator[Guess]:
    """A line that continues a text, but begins at the margin."""
    line = lines[at]
    if at == 0 or KEY.match(line) or ITEM.match(line) or line[:1].isspace() or not line.strip():
        return
    above = _value(lines[at - 1])
    if above is not None or lines[at - 1][:1].isspace():
        item = ITEM.match(lines[at - 1])
        fixed = " " * (len(item["lead"]) if item else 2) + line
        name = _name(above[1]) if above else "the text above"
        reason = f"it continues {name} without indentation"
        yield Guess(at, reason, "begin the line with two spaces", _change(lines, at, fixed))


def _margin(lines: list[str], at: int) -> Iterator[Guess]:
    """A key that belongs at the margin, but is indented."""
    match = KEY.match(lines[at])
    if match and match["lead"] and not match["lead"].strip() and match["key"] in TOP_KEYS:
        fixed = lines[at].lstrip()
        reason = f"`{match['key']}` is indented"
        yield Guess(at, reason, "remove the spaces before it", _change(lines, at, fixed))


def _indentation(lines: list[str], at: int) -> Iterator[Guess]:
    line = lines[at]
    if not (KEY.match(line) or ITEM.match(line)):
        return
    for pattern in (ITEM, KEY) if ITEM.match(line) else (KEY,):
        for n in range(at - 1, -1, -1):
            depth = _depth(lines[n])
            if depth and depth != _depth(line) and pattern.match(lines[n]):
                fixed = " " * depth + line.lstrip()
                advice = f"begin it with {depth} space{'s' if depth > 1 else ''}, as line {{0}}"
                reason = "it is indented differently from the lines above"
                yield Guess(at, reason, advice, _change(lines, at, fixed), (n,))
                break


def _repeated(lines: list[str], error: FrontMatterError) -> Iterator[Guess]:
    at = error.line or 0
    match = KEY.match(lines[at])
    if match is None:
        return
    depth = len(match["lead"])
    same = [n for n in range(at) if _is_key(lines[n], match["key"]) and _depth(lines[n]) == depth]
    if not same:
        return
    end = at + 1
    while end < len(lines) and (
        not lines[end].strip()
        or _depth(lines[end]) > depth
        or (not match["value"] and lines[end].lstrip().startswith("- "))
    ):
        end += 1
    changed = [*lines[:at], *[""] * (end - at), *lines[end:]]
    yield Guess(at, error.reason or "", "remove it, or the one in line {0}", changed, (same[-1],))


def _dates(lines: list[str]) -> Iterator[Guess]:
    """Days that do not exist: PyYAML gives no line for them. The check of the key reports them."""
    for at, line in enumerate(lines):
        parts = _value(line)
        match = parts and re.match(r"\d{4}-\d\d?-\d\d?", parts[2])
        if parts and match:
            try:
                datetime.date.fromisoformat(match[0])
            except ValueError:
                yield Guess(at, "", "", _change(lines, at, parts[0] + quote(parts[2])))


def _invisible(lines: list[str]) -> Iterator[Guess]:
    for at, line in enumerate(lines):
        if INVISIBLE.search(line):
            fixed = INVISIBLE.sub("", line)
            yield Guess(
                at, "it contains an invisible control character", "remove it", _change(lines, at, fixed)
            )


_FINDERS = (_characters, _quotes, _spacing, _margin, _colon, _unindented, _special, _indentation)
