"""Finds the mistakes in a YAML text, each with its line and a fix that makes the rest readable.

A YAML parser stops at the first error and often names a later line. Here, each guess at a mistake is applied
to the text and parsed again; it is reported only if the parser then gets past that line. Reading continues
from there, so that one pass reports all mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from rule_server.rulebook.diagnosis.mistakes import HEADING, KEY, Guess, guesses, looks_like_fence
from rule_server.rulebook.front_matter import (
    FENCE,
    FrontMatterError,
    YamlLoader,
    parse_yaml,
)

MAX_ROUNDS = 20


class Fault(NamedTuple):
    """A problem of a file with the smallest change that fixes it."""

    problem: str
    fix: str
    line: int | None = None
    """Line in the file from 1; None: it concerns the whole file."""


@dataclass
class RepairBudget:
    """Limits the work on broken files: a hostile folder contains thousands of them."""

    bytes: int = 8 << 20
    """Bytes of YAML that may still be parsed again; about 4 s of parsing."""
    longest: int = 16 << 10
    """Size from which YAML is not repaired; a rule has about 3 KB."""

    def spend(self, size: int) -> bool:
        """Returns whether a text of this size may be parsed."""
        self.bytes -= size
        return self.bytes >= 0


@dataclass
class YamlSource:
    """The readable part of a file."""

    data: dict[str, Any] | None = None
    """The keys, after repair; None: the YAML cannot be read."""
    body: str = ""
    """Text below the front matter."""
    faults: list[Fault] = field(default_factory=list)
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    """Line of each key and list item, by its path."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """Each line of the YAML by its number, after repair."""
    body_line: int = 1
    """Line at which the body begins."""


def read_yaml(lines: Sequence[str], first: int = 1, budget: RepairBudget | None = None) -> YamlSource:
    """Reads YAML. `first` is the number of its first line in the file."""
    budget = budget or RepairBudget()
    source = YamlSource()
    current = list(lines)
    for _ in range(MAX_ROUNDS):
        try:
            source.data = parse_yaml("\n".join(current))
            break
        except FrontMatterError as error:
            guess = _repair(current, error, budget)
            if guess is None:
                source.faults.append(_raw(error, first))
                break
            if guess.reason:
                where = f"the YAML cannot be read in line {guess.at + first}"
                source.faults.append(Fault(f"{where}: {guess.reason}", guess.fix(first), guess.at + first))
            current = guess.lines
    if source.data is not None:
        source.lines = _node_lines("\n".join(current), first)
        source.texts = dict(enumerate(current, first))
    return source


def read_front_matter(text: str, budget: RepairBudget | None = None) -> YamlSource:
    """Reads a Markdown file with front matter between two lines `---`, one of which may be missing."""
    lines = text.removeprefix("\ufeff").splitlines()
    start, faults = _opening(lines)
    if start is None:
        return YamlSource(faults=faults)
    end, after, more = _closing(lines, start)
    if end is None:
        return YamlSource(faults=faults + more)
    source = read_yaml(lines[start:end], start + 1, budget)
    source.faults = sorted(faults + more + source.faults, key=lambda fault: fault.line or 0)
    source.body, source.body_line = "\n".join(lines[after:]), after + 1
    return source


def _opening(lines: Sequence[str]) -> tuple[int | None, list[Fault]]:
    """Returns the index of the first line of YAML; None if there is none."""
    problem = f"the first line is not `{FENCE}`"
    if lines and lines[0].rstrip() == FENCE:
        return 1, []
    at = next((at for at, line in enumerate(lines) if line.strip()), None)
    if at is None:
        return None, [Fault(problem, "begin the file with `---`, `key: value` lines, `---`", 1)]
    if lines[at].rstrip() == FENCE:
        return at + 1, [Fault(problem, f"remove the empty lines before line {at + 1}", 1)]
    if looks_like_fence(lines[at]):
        return at + 1, [Fault(problem, f"write `---` in line {at + 1}, without spaces before it", at + 1)]
    if KEY.match(lines[at]):
        return at, [Fault(problem, f"put a line `---` before `{lines[at].strip()[:60]}`", at + 1)]
    return None, [Fault(problem, "begin the file with `---`, `key: value` lines, `---`", 1)]


def _closing(lines: Sequence[str], start: int) -> tuple[int | None, int, list[Fault]]:
    """Returns the index of the line after the YAML, and that of the first line of the body."""
    problem = f"the front matter is not closed by a line `{FENCE}`"
    for at in range(start, len(lines)):
        if lines[at].rstrip() == FENCE:
            return at, at + 1, []
        if looks_like_fence(lines[at]):
            fix = f"write `---` in line {at + 1}, without spaces before it"
            return at, at + 1, [Fault(problem, fix, at + 1)]
        if HEADING.match(lines[at]):
            fix = f"put a line `---` before line {at + 1} (`{lines[at].strip()[:40]}`)"
            return at, at, [Fault(problem, fix, at + 1)]
    last = max((at for at in range(start, len(lines)) if lines[at].strip()), default=start - 1)
    return None, 0, [Fault(problem, "put a line `---` after the last key, before the text", last + 1)]


def _raw(error: FrontMatterError, first: int) -> Fault:
    line = None if error.line is None else error.line + first
    where = f" in line {line}" if line is not None else ""
    fix = "write `key: value` lines; put a text with special characters in quotes"
    if error.reason is None:
        return Fault(str(error), fix, line)
    return Fault(f"the YAML cannot be read{where}: {error.reason}", fix, line)


def _repair(lines: list[str], error: FrontMatterError, budget: RepairBudget) -> Guess | None:
    """Returns the first guess that brings the parser past its line, or None."""
    size = sum(map(len, lines))
    if size > budget.longest:
        return None
    for guess in guesses(lines, error):
        if not budget.spend(size):
            return None
        try:
            parse_yaml("\n".join(guess.lines))
        except FrontMatterError as next_error:
            later = next_error.start is not None and next_error.start > guess.at
            # A repeated key is found only once all the YAML is read, in no particular order of lines.
            other = "occurs twice" in str(error) and str(next_error) != str(error)
            if not (later or other):
                continue
        return guess
    return None


def _node_lines(text: str, first: int) -> dict[tuple[str | int, ...], int]:
    found: dict[tuple[str | int, ...], int] = {}

    def visit(node: yaml.Node, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[*path, key.value] = key.start_mark.line + first
                visit(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for at, item in enumerate(node.value):
                found[*path, at] = item.start_mark.line + first
                visit(item, (*path, at))

    root = yaml.compose(text, YamlLoader)
    if root is not None:
        visit(root, ())
    return found
