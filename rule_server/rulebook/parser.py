"""How the text of one file becomes a rule, a category or a manifest, or a list of what is wrong with it."""

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

MAX_FILE = 64 * 1024  # bytes: a rule has 120 words, so anything near this is no rule
MAX_WORDS = 120
MAX_SAID = 400  # characters of a message that quotes a file
MANIFEST = "rulebook.yaml"
CATEGORY_FILE = "_category.md"
SECTIONS = {"Fine": "fine", "Not fine": "not_fine", "How to answer": "how_to_answer"}

_VARIABLE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class LintProblem:
    """Something wrong with one file of a rulebook, and the smallest change that mends it."""

    rule: str
    """The file: relative to the rules folder, or behind that folder's name where there are several."""
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.fix}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def of(cls, file: str, problem: str, fix: str) -> LintProblem:
        """With what the file's name and text bring along made fit for a terminal: printable and short."""
        return cls(
            *(
                "".join(c if c.isprintable() else "?" for c in text)[:MAX_SAID]
                for text in (file, problem, fix)
            )
        )


Problem = LintProblem
"""The name that `from rule_server import Problem` keeps."""


class BadFile(Exception):
    """One or more problems of the file at hand, each with its fix."""

    def __init__(self, *found: tuple[str, str]) -> None:
        self.found = found


Model = TypeVar("Model", bound=Strict)


def parse_manifest(file: Path) -> FolderManifest:
    """rulebook.yaml. Raises BadFile."""
    usual = "write `name: my-rules` and `version: 0.1.0`"
    if not file.exists():
        raise BadFile(("the file is missing", usual))
    try:
        return _model(FolderManifest, parse_yaml(read_text(file)))
    except FrontMatterError as error:
        raise BadFile((str(error), usual)) from None


def parse_category(file: Path) -> Category:
    """_category.md. Raises BadFile."""
    data, body = _split(file)
    category = _model(Category, data | {"body": _prose(body)} if body.strip() else data)
    if category.id != file.parent.name:
        raise BadFile((f"`id` is {category.id!r}", f"write the folder's name: {file.parent.name}"))
    return category


def parse_rule(file: Path, variables: Mapping[str, str]) -> Rule:
    """<category>/<rule>.md or <rule>.<lang>.md. Raises BadFile."""
    stem, _, lang = file.stem.partition(".")
    if lang and not _LANGUAGE.fullmatch(lang):
        raise BadFile(
            (f"{lang!r} in its name is no language", "name a translation <rule>.<lang>.md (x.de.md)")
        )
    data, body = _split(file)
    front = _model(FrontMatter, data)
    if front.id != f"{file.parent.name}.{stem}":
        raise BadFile((f"`id` is {front.id!r}", f"write {file.parent.name}.{stem}, after folder and file"))
    if front.stance != "answer" and front.not_when is None:
        raise BadFile(("`not_when` is missing", "say what looks like this and is not"))
    for key in ("title", "applies_when", "not_when"):
        if "{{" in (getattr(front, key) or ""):
            raise BadFile((f"`{key}` holds a variable", "name variables in the prose alone"))
    sections = {key: _filled(text, variables) for key, text in _sections(body).items()}
    return Rule.model_validate(front.model_dump() | sections | {"lang": lang})


def misplaced(path: Path) -> tuple[str, str]:
    """Problem and fix of something that does not belong into a rules folder."""
    if path.is_symlink():
        return "it is a symbolic link", "put the file itself here"
    return "it is not where a rule belongs", "rules are files <category>/<rule>.md; move it or remove it"


def read_text(file: Path) -> str:
    """The text of a regular file of at most MAX_FILE bytes; no link is followed, no pipe waited for.

    Raises:
        BadFile: when it is anything else.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise BadFile(misplaced(file))
            raw = opened.read(MAX_FILE + 1)
    except OSError as error:
        if error.errno == errno.ELOOP or isinstance(error, IsADirectoryError):
            raise BadFile(misplaced(file)) from None
        raise BadFile((f"it cannot be read ({error.strerror})", "make it readable")) from None
    if len(raw) > MAX_FILE:
        raise BadFile((f"it is larger than {MAX_FILE // 1024} KiB", "shorten it or split it"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadFile(("it is not UTF-8 text", "save it as UTF-8")) from None


def _split(file: Path) -> tuple[dict[str, Any], str]:
    try:
        return split_front_matter(read_text(file))
    except FrontMatterError as error:
        raise BadFile((str(error), "the file begins with `---`, `key: value` lines, `---`")) from None


def _model(kind: type[Model], data: Mapping[str, Any]) -> Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise BadFile(*(_explain(kind, item) for item in error.errors())) from None


def _explain(kind: type[Strict], item: Any) -> tuple[str, str]:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"`{name}` is missing", "add it to the front matter"
    if item["type"] == "extra_forbidden":
        keys = ", ".join(key for key in kind.model_fields if key != "body")
        return f"unknown key `{name[:60]}`", f"remove it or correct its spelling (known: {keys})"
    reason = item["msg"].removeprefix("Value error, ")
    hint = " (YAML reads a bare yes or no so: quote it)" if isinstance(item["input"], bool) else ""
    return f"`{name}` cannot be {_shown(item['input'])}{hint}", reason[:1].lower() + reason[1:]


def _shown(value: object) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:  # an integer of more digits than Python prints
        return "so long a number"


def _sections(body: str) -> dict[str, str]:
    """The three sections by field name, normalised. Raises BadFile."""
    parts = re.split(r"(?m)^##[ \t]+(.+?)[ \t]*$", body)
    wanted = ", ".join(f"## {heading}" for heading in SECTIONS)
    if parts[0].strip():
        raise BadFile(("there is text before the first heading", f"put it under one of {wanted}"))
    headings, texts = parts[1::2], parts[2::2]
    if sorted(headings) != sorted(SECTIONS):
        named = ", ".join(heading[:40] for heading in headings[:8]) or "none"
        raise BadFile((f"its headings are {named}", f"use each of {wanted} once"))
    sections = {SECTIONS[heading]: _prose(text) for heading, text in zip(headings, texts, strict=True)}
    for key, text in sections.items():
        if not text:
            raise BadFile((f"the section {key.replace('_', ' ')} is empty", "write a sentence"))
    words = sum(len(text.split()) for text in sections.values())
    if words > MAX_WORDS:
        raise BadFile((f"its prose has {words} words", f"shorten it to {MAX_WORDS}: a model reads it whole"))
    return sections


def _prose(text: str) -> str:
    """Paragraphs and list items, one a line, folded lines joined."""
    if INVISIBLE.search(text):
        raise BadFile(("its prose holds an invisible control character", "remove it"))
    text = unicodedata.normalize("NFC", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*] )", text)
    return "\n".join(" ".join(block.split()) for block in blocks if block.strip())


def _filled(text: str, variables: Mapping[str, str]) -> str:
    for name in _VARIABLE.findall(text):
        if name not in variables:
            raise BadFile((f"the variable {name!r} has no value", "give it one in ASCL_RULES_VARIABLES"))
    if "{{" in _VARIABLE.sub("", text):
        raise BadFile(
            ("it holds `{{` and no name of a variable", "write {{name}}: small letters, digits and _")
        )
    return _VARIABLE.sub(lambda match: variables[match[1]], text)
