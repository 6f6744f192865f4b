"""Parses one file into a rule, a category or a manifest, or reports its problems."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rule_server.rulebook.front_matter import FrontMatterError, parse_yaml, split_front_matter
from rule_server.rulebook.model import INVISIBLE, Category, FolderManifest, FrontMatter, Rule, Strict

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

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.fix}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def sanitized(cls, file: str, problem: str, fix: str) -> LintProblem:
        """Creates a problem whose texts are safe for a terminal: printable characters, limited length."""
        return cls(
            *(
                "".join(c if c.isprintable() else "?" for c in text)[:MAX_MESSAGE_CHARS]
                for text in (file, problem, fix)
            )
        )


Problem = LintProblem
"""Alias for `from rule_server import Problem`."""


class RuleFileError(Exception):
    """One or more problems of a file, each with its fix."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        self.problems = problems


Model = TypeVar("Model", bound=Strict)


def parse_manifest(file: Path) -> FolderManifest:
    """Parses rulebook.yaml. Raises RuleFileError."""
    fix = "write `name: my-rules` and `version: 0.1.0`"
    if not file.exists():
        raise RuleFileError(("the file is missing", fix))
    try:
        return _model(FolderManifest, parse_yaml(read_text(file)))
    except FrontMatterError as error:
        raise RuleFileError((str(error), fix)) from None


def parse_category(file: Path) -> Category:
    """Parses _category.md. Raises RuleFileError."""
    data, body = _split(file)
    category = _model(Category, data | {"body": _prose(body)} if body.strip() else data)
    if category.id != file.parent.name:
        raise RuleFileError((f"`id` is {category.id!r}", f"write the folder's name: {file.parent.name}"))
    return category


def parse_rule(file: Path, variables: Mapping[str, str]) -> Rule:
    """Parses <category>/<rule>.md or <rule>.<lang>.md. Raises RuleFileError."""
    stem, _, lang = file.stem.partition(".")
    if lang and not _LANGUAGE.fullmatch(lang):
        raise RuleFileError(
            (f"{lang!r} in its name is not a language", "name a translation <rule>.<lang>.md (x.de.md)")
        )
    data, body = _split(file)
    front = _model(FrontMatter, data)
    if front.id != f"{file.parent.name}.{stem}":
        raise RuleFileError(
            (f"`id` is {front.id!r}", f"write {file.parent.name}.{stem}, after folder and file")
        )
    if front.stance != "answer" and front.not_when is None:
        raise RuleFileError(("`not_when` is missing", "say what looks like this and is not"))
    for key in ("title", "applies_when", "not_when"):
        if "{{" in (getattr(front, key) or ""):
            raise RuleFileError((f"`{key}` contains a variable", "use variables only in the prose"))
    sections = {key: _fill_variables(text, variables) for key, text in _sections(body).items()}
    return Rule.model_validate(front.model_dump() | sections | {"lang": lang})


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


def _split(file: Path) -> tuple[dict[str, Any], str]:
    try:
        return split_front_matter(read_text(file))
    except FrontMatterError as error:
        raise RuleFileError((str(error), "begin the file with `---`, `key: value` lines, `---`")) from None


def _model(kind: type[Model], data: Mapping[str, Any]) -> Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise RuleFileError(*(_explain(kind, item) for item in error.errors())) from None


def _explain(kind: type[Strict], item: Any) -> tuple[str, str]:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"`{name}` is missing", "add it to the front matter"
    if item["type"] == "extra_forbidden":
        keys = ", ".join(key for key in kind.model_fields if key != "body")
        return f"unknown key `{name[:60]}`", f"remove it or correct its spelling (known: {keys})"
    reason = item["msg"].removeprefix("Value error, ")
    hint = " (YAML reads a bare yes or no as a boolean: quote it)" if isinstance(item["input"], bool) else ""
    return f"`{name}` cannot be {_quote(item['input'])}{hint}", reason[:1].lower() + reason[1:]


def _quote(value: object) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:  # an integer of more digits than Python converts
        return "so long a number"


def _sections(body: str) -> dict[str, str]:
    """Returns the three normalised sections by field name. Raises RuleFileError."""
    parts = re.split(r"(?m)^##[ \t]+(.+?)[ \t]*$", body)
    expected = ", ".join(f"## {heading}" for heading in SECTIONS)
    if parts[0].strip():
        raise RuleFileError(("there is text before the first heading", f"put it under one of {expected}"))
    headings, texts = parts[1::2], parts[2::2]
    if sorted(headings) != sorted(SECTIONS):
        names = ", ".join(heading[:40] for heading in headings[:8]) or "none"
        raise RuleFileError((f"its headings are {names}", f"use each of {expected} once"))
    sections = {SECTIONS[heading]: _prose(text) for heading, text in zip(headings, texts, strict=True)}
    for key, text in sections.items():
        if not text:
            raise RuleFileError((f"the section {key.replace('_', ' ')} is empty", "write a sentence"))
    words = sum(len(text.split()) for text in sections.values())
    if words > MAX_WORDS:
        raise RuleFileError(
            (f"its prose has {words} words", f"shorten it to {MAX_WORDS}: a model reads it whole")
        )
    return sections


def _prose(text: str) -> str:
    """Normalises prose to one paragraph or list item per line."""
    if INVISIBLE.search(text):
        raise RuleFileError(("its prose contains an invisible control character", "remove it"))
    text = unicodedata.normalize("NFC", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*] )", text)
    return "\n".join(" ".join(block.split()) for block in blocks if block.strip())


def _fill_variables(text: str, variables: Mapping[str, str]) -> str:
    for name in _VARIABLE.findall(text):
        if name not in variables:
            raise RuleFileError(
                (f"the variable {name!r} has no value", "give it one in ASCL_RULES_VARIABLES")
            )
    if "{{" in _VARIABLE.sub("", text):
        raise RuleFileError(
            ("it contains `{{` without a variable name", "write {{name}}: small letters, digits and _")
        )
    return _VARIABLE.sub(lambda match: variables[match[1]], text)
