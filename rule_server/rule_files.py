"""How a folder of Markdown files becomes a rulebook, or a list of what is wrong with it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rule_server.errors import RulebookError
from rule_server.front_matter import FrontMatterError, parse_yaml, split_front_matter
from rule_server.rulebook import INVISIBLE, Category, FrontMatter, Manifest, Rule, Rulebook, Strict

MAX_FILE = 64 * 1024  # bytes: a rule has 120 words, so anything near this is no rule
MAX_RULES = 5000
MAX_CATEGORIES = 200
MAX_WORDS = 120
MANIFEST = "rulebook.yaml"
CATEGORY_FILE = "_category.md"
SECTIONS = {"Fine": "fine", "Not fine": "not_fine", "How to answer": "how_to_answer"}

_VARIABLE = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file of a rulebook, and the smallest change that mends it."""

    rule: str
    """The file, relative to the rules folder."""
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; {self.fix}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class _Bad(Exception):
    """One or more problems of the file at hand."""

    def __init__(self, *found: tuple[str, str]) -> None:
        self.found = found


Model = TypeVar("Model", bound=Strict)


def load_rulebook(folder: Path, variables: Mapping[str, str] | None = None) -> Rulebook:
    """The rulebook in a folder.

    Raises:
        RulebookError: one sentence that names the first bad file and its fix, and how many more there are.
    """
    rulebook, problems = read_rulebook(folder, variables)
    if rulebook is None:
        more = f" (and {len(problems) - 1} more: see `ascl-rules lint`)" if len(problems) > 1 else ""
        raise RulebookError(f"{folder.name}/{problems[0]}{more}")
    return rulebook


def read_rulebook(
    folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[Rulebook | None, list[Problem]]:
    """The rulebook in a folder, or None and every problem that was found.

    Raises:
        RulebookError: when there is no such folder.
    """
    if not folder.is_dir():
        raise RulebookError(f"{folder} is no folder: name the rules folder by --rules or ASCL_RULES_DIR")
    problems: list[Problem] = []
    manifest = _manifest(folder, problems)
    categories: dict[str, Category] = {}
    rules: dict[tuple[str, str], Rule] = {}
    for entry in sorted(folder.iterdir()):
        if _ignored(entry) or entry.name in (MANIFEST, "README.md"):
            continue
        if entry.is_symlink() or not entry.is_dir():
            if entry.is_symlink() or entry.suffix == ".md":
                problems.append(Problem(entry.name, *_misplaced(entry)))
            continue
        for file in sorted(entry.iterdir()):
            if _ignored(file):
                continue
            try:
                if file.is_symlink() or file.suffix != ".md" or not file.is_file():
                    raise _Bad(_misplaced(file))
                if file.name == CATEGORY_FILE:
                    categories[entry.name] = _category(file)
                else:
                    rule = _rule(file, variables or {})
                    rules[rule.id, rule.lang] = rule
            except _Bad as bad:
                name = f"{entry.name}/{file.name}"
                problems += [Problem(name, problem, fix) for problem, fix in bad.found]
        if not (entry / CATEGORY_FILE).exists():
            name = f"{entry.name}/{CATEGORY_FILE}"
            problems.append(Problem(name, "the file is missing", "write one with id, title and summary"))
        if len(rules) > MAX_RULES or len(categories) > MAX_CATEGORIES:
            limit = f"a rulebook holds at most {MAX_RULES} rules in {MAX_CATEGORIES} categories"
            problems.append(Problem(entry.name, limit, "split the rulebook"))
            break
    for id, lang in rules:
        if lang and (id, "") not in rules:
            name = f"{id.replace('.', '/')}.{lang}.md"
            problems.append(Problem(name, "it translates no rule", "add the original, or remove this"))
    if not rules and not problems:
        problems.append(Problem(MANIFEST, "the rulebook has no rule", "add <category>/<rule>.md"))
    if problems or manifest is None:
        return None, problems
    return Rulebook(
        name=manifest.name,
        version=manifest.version,
        categories=[categories[name] for name in sorted(categories)],
        rules=[rules[key] for key in sorted(rules)],
    ), []


def _ignored(path: Path) -> bool:
    """What editors and version control leave beside the files."""
    return path.name.startswith(".") or path.name.endswith("~") or path.name == "__pycache__"


def _misplaced(path: Path) -> tuple[str, str]:
    if path.is_symlink():
        return "it is a symbolic link", "put the file itself here"
    return "it is not where a rule belongs", "rules are files <category>/<rule>.md; move it or remove it"


def _manifest(folder: Path, problems: list[Problem]) -> Manifest | None:
    try:
        if not (folder / MANIFEST).exists():
            raise _Bad(("the file is missing", "write one with `name: my-rules` and `version: 0.1.0`"))
        try:
            return _model(Manifest, parse_yaml(_text(folder / MANIFEST)))
        except FrontMatterError as error:
            raise _Bad((str(error), "write `name: my-rules` and `version: 0.1.0`")) from None
    except _Bad as bad:
        problems += [Problem(MANIFEST, problem, fix) for problem, fix in bad.found]
        return None


def _category(file: Path) -> Category:
    data, body = _split(file)
    category = _model(Category, data | {"body": _prose(body)} if body.strip() else data)
    if category.id != file.parent.name:
        raise _Bad((f"`id` is {category.id!r}", f"write the folder's name: {file.parent.name}"))
    return category


def _rule(file: Path, variables: Mapping[str, str]) -> Rule:
    stem, _, lang = file.stem.partition(".")
    if lang and not _LANGUAGE.fullmatch(lang):
        raise _Bad((f"{lang!r} in its name is no language", "name a translation <rule>.<lang>.md (x.de.md)"))
    data, body = _split(file)
    front = _model(FrontMatter, data)
    if front.id != f"{file.parent.name}.{stem}":
        raise _Bad((f"`id` is {front.id!r}", f"write {file.parent.name}.{stem}, after folder and file"))
    if front.stance != "answer" and front.not_when is None:
        raise _Bad(("`not_when` is missing", "say what looks like this and is not"))
    sections = {key: _filled(text, variables) for key, text in _sections(body).items()}
    return Rule.model_validate(front.model_dump() | sections | {"lang": lang})


def _text(file: Path) -> str:
    if file.is_symlink():
        raise _Bad(_misplaced(file))
    try:
        if file.stat().st_size > MAX_FILE:
            raise _Bad((f"it is larger than {MAX_FILE // 1024} KiB", "shorten it or split it"))
        return file.read_bytes()[: MAX_FILE + 1].decode("utf-8")
    except UnicodeDecodeError:
        raise _Bad(("it is not UTF-8 text", "save it as UTF-8")) from None
    except OSError as error:
        raise _Bad((f"it cannot be read ({error.strerror})", "make it readable")) from None


def _split(file: Path) -> tuple[dict[str, Any], str]:
    try:
        return split_front_matter(_text(file))
    except FrontMatterError as error:
        raise _Bad((str(error), "the file begins with `---`, `key: value` lines, `---`")) from None


def _model(kind: type[Model], data: Mapping[str, Any]) -> Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _Bad(*(_explain(kind, item) for item in error.errors())) from None


def _explain(kind: type[Strict], item: Any) -> tuple[str, str]:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"`{name}` is missing", "add it to the front matter"
    if item["type"] == "extra_forbidden":
        keys = ", ".join(key for key in kind.model_fields if key != "body")
        return f"unknown key `{name}`", f"remove it or correct its spelling (known: {keys})"
    reason = item["msg"].removeprefix("Value error, ")
    hint = " (YAML reads a bare yes or no so: quote it)" if isinstance(item["input"], bool) else ""
    return f"`{name}` cannot be {str(item['input'])[:60]!r}{hint}", reason[:1].lower() + reason[1:]


def _sections(body: str) -> dict[str, str]:
    """The three sections by field name, normalised. Raises _Bad."""
    parts = re.split(r"(?m)^##[ \t]+(.+?)[ \t]*$", body)
    wanted = ", ".join(f"## {heading}" for heading in SECTIONS)
    if parts[0].strip():
        raise _Bad(("there is text before the first heading", f"put it under one of {wanted}"))
    headings, texts = parts[1::2], parts[2::2]
    if sorted(headings) != sorted(SECTIONS):
        raise _Bad((f"its headings are {', '.join(headings) or 'none'}", f"use each of {wanted} once"))
    sections = {SECTIONS[heading]: _prose(text) for heading, text in zip(headings, texts, strict=True)}
    for key, text in sections.items():
        if not text:
            raise _Bad((f"the section {key.replace('_', ' ')} is empty", "write a sentence"))
    words = sum(len(text.split()) for text in sections.values())
    if words > MAX_WORDS:
        raise _Bad((f"its prose has {words} words", f"shorten it to {MAX_WORDS}: a model reads it whole"))
    return sections


def _prose(text: str) -> str:
    """Paragraphs and list items, one a line, folded lines joined."""
    if INVISIBLE.search(text):
        raise _Bad(("its prose holds an invisible control character", "remove it"))
    text = unicodedata.normalize("NFC", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*] )", text)
    return "\n".join(" ".join(block.split()) for block in blocks if block.strip())


def _filled(text: str, variables: Mapping[str, str]) -> str:
    for name in _VARIABLE.findall(text):
        if name not in variables:
            raise _Bad((f"the variable {name!r} has no value", "give it one in ASCL_RULES_VARIABLES"))
    return _VARIABLE.sub(lambda match: variables[match[1]], text)
