"""Questions from JSON Lines, such as exported consultations; a torn or alien line is counted, never fatal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rule_server.errors import StartError
from rule_server.schemas import Verdict

MAX_LINE = 1 << 20
MAX_ROWS = 200_000
_LONGEST = 4000


def _id(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


class _Row(BaseModel):
    """The columns that are read; there may be others."""

    model_config = ConfigDict(strict=True, extra="ignore")

    situation: Annotated[str, Field(max_length=_LONGEST)] | None = None
    prompt: Annotated[str, Field(max_length=_LONGEST)] | None = None
    kind: Annotated[str, Field(max_length=200)] | None = None
    rules: list[Annotated[str, BeforeValidator(_id)]] | None = None
    verdict: Verdict | None = None
    digest: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True)
class Question:
    """One row: what was asked and, where the row says so, what was answered."""

    file: str
    line: int
    text: str
    """Empty for a row of an audit log that keeps no questions."""
    kind: str | None
    rules: tuple[str, ...] | None
    """Ids of the rules that came back; None when the row does not say."""
    digest: str | None
    """Of the rulebook that answered."""


@dataclass(frozen=True)
class BadLine:
    """A line that holds no question, and why."""

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
    """The questions of the files in order, and the lines that hold none.

    With `answers_suffice`, a row that says which rules came back need not say what was asked.

    Raises:
        StartError: when a file cannot be read, or they hold more than MAX_ROWS lines.
    """
    questions: list[Question] = []
    bad: list[BadLine] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                for number, line in enumerate(_lines(opened), 1):
                    if not line.strip():
                        continue
                    found = _question(file, number, line, answers_suffice)
                    (questions if isinstance(found, Question) else bad).append(found)  # type: ignore[arg-type]
                    if len(questions) + len(bad) > MAX_ROWS:
                        raise StartError(f"{file} makes it more than {MAX_ROWS} lines: pass fewer at once")
        except OSError as error:
            raise StartError(
                f"{file} cannot be read ({error.strerror}): name a JSON Lines file with a `situation` or a "
                "`prompt` in every line"
            ) from None
    return questions, bad


def _lines(opened: BinaryIO) -> Iterator[bytes]:
    """Lines of bounded length: of a longer one, the first MAX_LINE + 1 bytes."""
    while line := opened.readline(MAX_LINE + 1):
        kept = line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = opened.readline(MAX_LINE + 1)
        yield kept


def _question(file: Path, number: int, line: bytes, answers_suffice: bool) -> Question | BadLine:
    def bad(reason: str) -> BadLine:
        return BadLine(file.name, number, reason)

    if len(line) > MAX_LINE:
        return bad(f"it is longer than {MAX_LINE >> 20} MiB")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return bad("it is not UTF-8 text")
    except (ValueError, RecursionError):
        return bad("it is not JSON" if line.endswith(b"\n") else "it is not JSON (the line is torn)")
    if not isinstance(value, dict):
        return bad("it is no JSON object")
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
    elif text is None or not text.strip():
        return bad("it has neither `situation` nor `prompt`")
    return Question(file.name, number, text, row.kind, rules, row.digest)
