"""Parses one file into a rule, a category or a manifest, or reports its problems."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from rule_server.rulebook.diagnosis import (
    HEADING,
    Fault,
    RepairBudget,
    RuleFileError,
    YamlSource,
    mostly_missing,
    read_front_matter,
    read_yaml,
    validate,
)
from rule_server.rulebook.model import INVISIBLE, Category, FolderManifest, FrontMatter, Rule

MAX_FILE_BYTES = 64 * 1024  # a rule has 120 words, so a file near this size is not a rule
MAX_WORDS = 120
MAX_MESSAGE_CHARS = 400  # limit for messages that quote a file
MANIFEST = "rulebook.yaml"
CATEGORY_FILE = "_category.md"
SECTIONS = {"Fine": "fine", "Not fine": "not_fine", "How to answer": "how_to_answer"}

_VARIABLE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class LintProblem:
    """A problem of one file of a rulebook, with the smallest change that fixes it."""

    rule: str
    """The file, relative to the rules folder; with several folders, preceded by the folder's name."""
    problem: str
    fix: str
    line: int | None = None
    """Line of the file, from 1; None: it concerns the whole file."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.fix}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields; `line` only if it is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def sanitized(cls, file: str, problem: str, fix: str, line: int | None = None) -> LintProblem:
        """Creates a problem whose texts are safe for a terminal: printable characters, limited length."""
        file, problem, fix = (
            "".join(c if c.isprintable() else "?" for c in text)[:MAX_MESSAGE_CHARS]
            for text in (file, problem, fix)
        )
        return cls(file, problem, fix, line)


Problem = LintProblem
"""Alias for `from rule_server import Problem`."""

Parsed = TypeVar("Parsed", bound=BaseModel)


def parse_manifest(file: Path, budget: RepairBudget | None = None) -> FolderManifest:
    """Parses rulebook.yaml. Raises RuleFileError."""
    fix = "write `name: my-rules` and `version: 0.1.0`"
    if not file.exists():
        raise RuleFileError(("the file is missing", fix))
    source = read_yaml(read_text(file).removeprefix("\ufeff").splitlines(), 1, budget)
    if source.data is None:
        raise RuleFileError(*source.faults)
    return _validated(FolderManifest, source)


def read_yaml_file(file: Path, kind: type[Parsed]) -> tuple[Parsed, Mapping[tuple[str | int, ...], int]]:
    """Reads a YAML file beside the rules. Returns its model, and the line of each key and list item.

    Raises:
        RuleFileError: it is invalid, or not a regular file of at most MAX_FILE_BYTES.
    """
    budget = RepairBudget(longest=MAX_FILE_BYTES)
    source = read_yaml(read_text(file).removeprefix("\ufeff").splitlines(), 1, budget)
    if source.data is None:
        raise RuleFileError(*source.faults)
    return _validated(kind, source), source.lines


def parse_category(file: Path, budget: RepairBudget | None = None) -> Category:
    """Parses _category.md. Raises RuleFileError."""
    source = read_front_matter(read_text(file), budget)
    if source.data is None:
        raise RuleFileError(*source.faults)
    faults: list[Fault] = []
    if source.body.strip():
        source.data["body"] = _prose(source.body, faults)
    id, line = source.data.get("id"), source.lines.get(("id",))
    if isinstance(id, str) and id != file.parent.name:
        fix = f"write the folder's name: {file.parent.name}"
        faults.append(Fault(f"`id` is {id[:60]!r}", fix, line))
    return _validated(Category, source, faults)


def parse_rule(file: Path, variables: Mapping[str, str], budget: RepairBudget | None = None) -> Rule:
    """Parses <category>/<rule>.md or <rule>.<lang>.md. Raises RuleFileError with all problems."""
    stem, _, lang = file.stem.partition(".")
    faults: list[Fault] = []
    if lang and not _LANGUAGE.fullmatch(lang):
        fix = "name a translation <rule>.<lang>.md (x.de.md)"
        faults.append(Fault(f"{lang!r} in its name is not a language", fix))
    source = read_front_matter(read_text(file), budget)
    understood = source.data is not None and not (source.faults and mostly_missing(FrontMatter, source.data))
    if understood:
        faults += _key_faults(source, f"{file.parent.name}.{stem}")
    sections: dict[str, str] = {}
    if understood or re.search(r"(?m)^##[ \t]", source.body):
        sections = _sections(source.body, source.body_line, faults)
    sections = {key: _fill_variables(text, variables, faults) for key, text in sections.items()}
    if source.data is None:
        raise RuleFileError(*source.faults, *faults)
    front = _validated(FrontMatter, source, faults)
    return Rule.model_validate(front.model_dump() | sections | {"lang": lang})


def _key_faults(source: YamlSource, expected: str) -> Iterator[Fault]:
    """Finds faults of the keys that the model does not know."""
    data = source.data or {}

    def at(key: str) -> int | None:
        return source.lines.get((key,))

    if isinstance(data.get("id"), str) and data["id"] != expected:
        yield Fault(f"`id` is {data['id'][:140]!r}", f"write {expected}, after folder and file", at("id"))
    if data.get("stance") in ("limit", "decline") and data.get("not_when") is None:
        yield Fault("`not_when` is missing", "say what looks like this and is not", at("not_when"))
    for key in ("title", "applies_when", "not_when"):
        if "{{" in str(data.get(key, "")):
            yield Fault(f"`{key}` contains a variable", "use variables only in the prose", at(key))


def _validated(kind: type[Parsed], source: YamlSource, faults: Sequence[Fault] = ()) -> Parsed:
    """Returns the model of the keys. Raises RuleFileError with all faults of the file, by line."""
    data = source.data or {}
    found = [*source.faults, *faults]
    value = None
    try:
        value = validate(kind, data, source)
    except RuleFileError as error:
        if not (source.faults and mostly_missing(kind, data)):
            named = {fault.problem.split("`")[1] for fault in faults if fault.problem.startswith("`")}
            # In a line with a mistake, the value is only a guess at what was meant.
            guessed = {fault.line for fault in source.faults}
            found += [
                fault
                for fault in error.problems
                if not _concerns(fault, named) and (fault.line is None or fault.line not in guessed)
            ]
    if found or value is None:
        raise RuleFileError(*sorted(found, key=lambda fault: fault.line or 1 << 30))
    return value


def _concerns(fault: Fault, keys: Set[str]) -> bool:
    """Returns whether a fault is about one of these keys, which another fault explains better."""
    return any(fault.problem.startswith(f"`{key}`") for key in keys)


def misplaced_file(path: Path) -> tuple[str, str]:
    """Returns problem and fix for an entry that does not belong in a rules folder."""
    if path.is_symlink():
        return "it is a symbolic link", "put the file itself here"
    return "it is not where a rule belongs", "rules are files <category>/<rule>.md; move it or remove it"


def read_text(file: Path) -> str:
    """Reads a regular file of at most MAX_FILE_BYTES. It follows no link and does not wait for a pipe.

    Raises:
        RuleFileError: the path is not such a file, or is not readable UTF-8 text.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise RuleFileError(misplaced_file(file))
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if error.errno == errno.ELOOP or isinstance(error, IsADirectoryError):
            raise RuleFileError(misplaced_file(file)) from None
        raise RuleFileError((f"it cannot be read ({error.strerror})", "make it readable")) from None
    if len(raw) > MAX_FILE_BYTES:
        raise RuleFileError((f"it is larger than {MAX_FILE_BYTES // 1024} KiB", "shorten it or split it"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RuleFileError(("it is not UTF-8 text", "save it as UTF-8")) from None


def _sections(body: str, first: int, faults: list[Fault]) -> dict[str, str]:
    """Returns the normalised sections by field name. `first` is the line at which the body begins."""
    body = _repair_headings(body, first, faults)
    parts = re.split(r"(?m)^##[ \t]+(.+?)[ \t]*$", body)
    expected = ", ".join(f"## {heading}" for heading in SECTIONS)
    if parts[0].strip():
        lead = len(parts[0]) - len(parts[0].lstrip())
        line = first + parts[0].count("\n", 0, lead)
        problem = "there is text before the first heading"
        faults.append(Fault(problem, f"put it under one of {expected}", line))
    headings, texts = parts[1::2], parts[2::2]
    if sorted(headings) != sorted(SECTIONS):
        names = ", ".join(heading[:40] for heading in headings[:8]) or "none"
        faults.append(Fault(f"its headings are {names}", f"use each of {expected} once"))
        return {}
    sections = {
        SECTIONS[heading]: _prose(text, faults) for heading, text in zip(headings, texts, strict=True)
    }
    for key, text in sections.items():
        if not text:
            faults.append(Fault(f"the section {key.replace('_', ' ')} is empty", "write a sentence"))
    words = sum(len(text.split()) for text in sections.values())
    if words > MAX_WORDS:
        fix = f"shorten it to {MAX_WORDS}: a model reads it whole"
        faults.append(Fault(f"its prose has {words} words", fix))
    return sections


def _repair_headings(body: str, first: int, faults: list[Fault]) -> str:
    """Corrects headings of the wrong level or case, and reports them."""
    lines = body.split("\n")
    for at, line in enumerate(lines):
        match = HEADING.match(line)
        heading = match and f"## {match[1].capitalize()}"
        if heading and line.rstrip() != heading and re.split(r"[ \t]+", line.rstrip()) != heading.split():
            lines[at] = heading
            problem = f"the heading in line {first + at} is {line.strip()[:40]!r}"
            faults.append(Fault(problem, f"write `{heading}`", first + at))
    return "\n".join(lines)


def _prose(text: str, faults: list[Fault]) -> str:
    """Normalises prose to one paragraph or list item per line."""
    if INVISIBLE.search(text):
        faults.append(Fault("its prose contains an invisible control character", "remove it"))
    text = unicodedata.normalize("NFC", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*] )", text)
    return "\n".join(" ".join(block.split()) for block in blocks if block.strip())


def _fill_variables(text: str, variables: Mapping[str, str], faults: list[Fault]) -> str:
    names = _VARIABLE.findall(text)
    for name in dict.fromkeys(names):
        if name not in variables:
            problem = f"the variable {name!r} has no value"
            faults.append(Fault(problem, "give it one in ASCL_RULES_VARIABLES"))
    if "{{" in _VARIABLE.sub("", text):
        fix = "write {{name}}: small letters, digits and _"
        faults.append(Fault("it contains `{{` without a variable name", fix))
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)
