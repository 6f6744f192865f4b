"""The episode log: JSON Lines, one episode a line; a kill loses nothing that was acknowledged."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from agent.episode.schema import Episode
from agent.errors import LogError

_LONGEST_LINE = 64 * 1024 * 1024  # bytes; an episode of a long conversation is a few hundred kilobytes


@dataclass(frozen=True)
class SkippedLine:
    """A line that is no episode: its number, from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class LogReading:
    """What a log holds, in the order written, and what of it could not be read."""

    episodes: list[Episode] = field(default_factory=list)
    skipped: list[SkippedLine] = field(default_factory=list)


class LineFile:
    """A file that grows by whole lines, private to its owner (0600).

    A last line that a kill cut off is closed with a newline on opening, so that only it cannot be read.

    Raises:
        LogError: when the file cannot be opened or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogError(f"cannot open {path} for writing: {error.strerror}") from error
        size = os.fstat(self.fd).st_size
        self._torn = False
        """Whether the last line was written in part, so that the next one must begin on a line of its own."""
        if size and os.pread(self.fd, 1, size - 1) != b"\n":
            self.write(b"")

    def write(self, line: bytes) -> None:
        """Append a line. One write call, so that neither a kill nor another writer can mix into it."""
        data = (b"\n" if self._torn else b"") + line + b"\n"
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            raise LogError(f"cannot write to {self.path}: {error.strerror}") from error
        self._torn = written != len(data) and (self._torn or written > 0)
        if written != len(data):
            raise LogError(
                f"only {written} of {len(data)} bytes could be written to {self.path}: is the disk full?"
            )

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EpisodeLog(LineFile):
    """A log open for appending; several processes may append to one file."""

    def append(self, episode: Episode) -> None:
        """Write one episode; when this returns, the operating system has it, and a kill cannot lose it."""
        self.write(to_json_line(episode))


def to_json_line(record: BaseModel, **options: Any) -> bytes:
    """A record as a line of JSON; halves of surrogate pairs, which no file holds, become question marks."""
    try:
        return record.model_dump_json(**options).encode()
    except PydanticSerializationError:
        return json.dumps(record.model_dump(**options), ensure_ascii=False).encode("utf-8", "replace")


def iter_log(path: Path | str, on_skip: Callable[[SkippedLine], None] | None = None) -> Iterator[Episode]:
    """The episodes of a log one by one, in bounded memory; lines that are none are told to `on_skip`.

    Raises:
        LogError: when the file cannot be read.
    """
    for number, line in numbered_lines(path):
        try:
            if line is None:
                raise ValueError(f"longer than {_LONGEST_LINE} bytes")
            yield Episode.model_validate_json(line)
        except ValueError as error:
            if on_skip:
                on_skip(SkippedLine(number, _reason(error)))


def read_log(path: Path | str) -> LogReading:
    """All of a log, with what of it could not be read and why.

    Raises:
        LogError: when the file cannot be read.
    """
    reading = LogReading()
    reading.episodes.extend(iter_log(path, reading.skipped.append))
    return reading


def numbered_lines(path: Path | str) -> Iterator[tuple[int, bytes | None]]:
    """The lines that hold something, with their numbers from 1; None in place of one that is too long."""
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                    while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield number, None
                elif not line.isspace():
                    yield number, line
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from error


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    what = first["msg"].removeprefix("Value error, ")
    return f"{where + ': ' if where else ''}{what}{more}"


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


class DailyLog:
    """`log.jsonl` becomes `log.2026-11-28.jsonl`, and so on; any of them is an episode log.

    Files are removed at the start and with the first episode of a day.

    Args:
        path: what the files are named after.
        keep_days: days, today among them, whose files stay.

    Raises:
        LogError: when a file cannot be opened, written or removed.
    """

    def __init__(self, path: Path, keep_days: int) -> None:
        self._path, self._keep_days = path, keep_days
        self._day = today()
        self._log = self._opened(self._day)
        self._forget_old()

    def append(self, episode: Episode) -> None:
        """Write one episode into the file of its day."""
        if (day := today()) == self._day:
            self._log.append(episode)
            return
        before, self._log, self._day = self._log, self._opened(day), day
        before.close()
        self._log.append(episode)
        # Last, so that a file that cannot be removed costs no episode.
        self._forget_old()

    def close(self) -> None:
        """Close the file of the day."""
        self._log.close()

    def _opened(self, day: date) -> EpisodeLog:
        return EpisodeLog(self._path.with_name(f"{self._path.stem}.{day}{self._path.suffix}"))

    def _forget_old(self) -> None:
        name = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{4}}-\d\d-\d\d){re.escape(self._path.suffix)}")
        oldest = (self._day - timedelta(days=self._keep_days - 1)).isoformat()
        try:
            for file in self._path.parent.iterdir():
                if (found := name.fullmatch(file.name)) and found[1] < oldest:
                    file.unlink()
        except OSError as error:
            raise LogError(
                f"old episodes cannot be removed from {error.filename}: {error.strerror}"
            ) from error
