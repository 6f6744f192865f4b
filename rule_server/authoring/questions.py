"""Reads questions from JSON Lines, such as exported consultations. Invalid lines are reported, not fatal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rule_server.errors import StartError
from rule_server.rulebook import has_visible
from rule_server.schemas import MAX_SITUATION_CHARS, Verdict

MAX_LINE_BYTES = 1 << 20
MAX_ROWS = 200_000


def _id(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


class _Row(BaseModel):
    """The columns that are read. Others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    situation: Annotated[str, Field(max_length=MAX_SITUATION_CHARS)] | None = None
    prompt: Annotated[str, Field(max_length=MAX_SITUATION_CHARS)] | None = None
    kind: Annotated[str, Field(max_length=200)] | None = None
    rules: list[Annotated[str, BeforeValidator(_id)]] | None = None
    verdict: Verdict | None = None
    reason: Annotated[str, Field(max_length=64)] | None = None
    digest: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True)
class Question:
    """One row: a question and, if the row has it, the answer."""

    file: str
    line: int
    text: str
    """Empty for a row of an audit log without question texts."""
    kind: str | None
    rules: tuple[str, ...] | None
    """Ids of the returned rules. None: not in the row."""
    digest: str | None
    """Digest of the rulebook that answered."""
    reason: str | None = None
    """Why the rules were not searched, if they were not."""


@dataclass(frozen=True)
class BadLine:
    """A line without a valid question, and the reason."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_questions(
    files: Sequence[Path], *, answers_suffice: bool = False
) -> tuple[list[Question], list[BadLine]]:
    """Reads the questions of the files in order, and the invalid lines.

    `answers_suffice` accepts a row that lists the returned rules without the question.

    Raises:
        StartError: a file cannot be read, or there are more than MAX_ROWS lines.
    """
    questions: list[Question] = []
    bad: list[BadLine] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                for number, line in enumerate(_lines(opened), 1):
                    if not line.strip():
                        continue
                    row = _parse_question(file, number, line, answers_suffice)
                    if row is None:
                        continue
                    if isinstance(row, Question):
                        questions.append(row)
                    else:
                        bad.append(row)
                    if len(questions) + len(bad) > MAX_ROWS:
                        raise StartError(f"the files have more than {MAX_ROWS} lines: pass fewer at once")
        except OSError as error:
            raise StartError(
                f"{file} cannot be read ({error.strerror}): name a JSON Lines file with a `situation` or a "
                "`prompt` in every line"
            ) from None
    return questions, bad


def _lines(opened: BinaryIO) -> Iterator[bytes]:
    """Yields lines of bounded length: of a longer one, the first MAX_LINE_BYTES + 1 bytes."""
    while line := opened.readline(MAX_LINE_BYTES + 1):
        beginning = line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = opened.readline(MAX_LINE_BYTES + 1)
        yield beginning


def _parse_question(file: Path, number: int, line: bytes, answers_suffice: bool) -> Question | BadLine | None:
    """Parses a line. Returns None for a request for the nearest rules or a hint: no consultation."""

    def bad(reason: str) -> BadLine:
        return BadLine(file.name, number, reason)

    if len(line) > MAX_LINE_BYTES:
        return bad(f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return bad("it is not UTF-8 text")
    except (ValueError, RecursionError):
        return bad("it is not JSON" if line.endswith(b"\n") else "it is not JSON (the line is torn)")
    if not isinstance(value, dict):
        return bad("it is not a JSON object")
    if value.get("request") in ("nearest", "hint") and "hmac" in value:
        return None
    try:
        row = _Row.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        return bad(f"`{'.'.join(map(str, first['loc']))[:60]}`: {first['msg'][:1].lower()}{first['msg'][1:]}")
    rules = None if row.rules is None else tuple(row.rules)
    if rules is None and row.verdict == "no_applicable_rule":
        rules = ()
    text = row.situation if row.situation is not None else row.prompt
    if text is None and answers_suffice and rules is not None:
        text = ""
    elif text is None or not has_visible(text):
        return bad("it has neither `situation` nor `prompt`")
    return Question(file.name, number, text, row.kind, rules, row.digest, row.reason)
