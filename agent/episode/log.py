"""The episode log: JSON Lines, one episode per line. A kill loses no acknowledged episode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from agent.episode.files import MAX_LINE_BYTES, LineFile, numbered_lines, to_json_line
from agent.episode.schema import Episode
from agent.errors import LogError


@dataclass(frozen=True)
class SkippedLine:
    """A line that is not an episode: its number, from 1, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class LogReading:
    """The episodes of a log in the order written, and the lines that could not be read."""

    episodes: list[Episode] = field(default_factory=list)
    skipped: list[SkippedLine] = field(default_factory=list)


class EpisodeLog(LineFile):
    """A log open for appending. Several processes may append to one file."""

    def append(self, episode: Episode) -> None:
        """Writes one episode. Once this returns, the operating system holds it and a kill cannot lose it."""
        self.write(to_json_line(episode))


def iter_log(path: Path | str, on_skip: Callable[[SkippedLine], None] | None = None) -> Iterator[Episode]:
    """Yields the episodes of a log one by one, in bounded memory; calls `on_skip` for every other line.

    Raises:
        LogError: if the file cannot be read.
    """
    for number, line in numbered_lines(path):
        try:
            if line is None:
                raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
            yield Episode.model_validate_json(line)
        except ValueError as error:
            if on_skip:
                on_skip(SkippedLine(number, _reason(error)))


def read_log(path: Path | str) -> LogReading:
    """Reads a whole log, including the lines that are not episodes, with the reasons.

    Raises:
        LogError: if the file cannot be read.
    """
    reading = LogReading()
    reading.episodes.extend(iter_log(path, reading.skipped.append))
    return reading


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    field_path = ".".join(str(part) for part in first["loc"])
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{field_path + ': ' if field_path else ''}{message}{more}"


def today() -> date:
    """Returns the current date in UTC."""
    return datetime.now(UTC).date()


class DailyLog:
    """Writes one log file per day: `log.jsonl` becomes `log.2026-11-28.jsonl`, and so on.

    Each file is an episode log. Old files are deleted at the start and at the first episode of each day.

    Args:
        path: the name from which the daily names are derived.
        keep_days: days, including today, whose files are kept.

    Raises:
        LogError: if a file cannot be opened, written or deleted.
    """

    def __init__(self, path: Path, keep_days: int) -> None:
        self._path, self._keep_days = path, keep_days
        self._day = today()
        self._log = self._open(self._day)
        self._delete_old_files()

    def append(self, episode: Episode) -> None:
        """Writes one episode to the file of the current day."""
        if (day := today()) == self._day:
            self._log.append(episode)
            return
        previous, self._log, self._day = self._log, self._open(day), day
        previous.close()
        self._log.append(episode)
        # Last, so that a file that cannot be deleted does not cost an episode.
        self._delete_old_files()

    def close(self) -> None:
        """Closes the file of the current day."""
        self._log.close()

    def _open(self, day: date) -> EpisodeLog:
        return EpisodeLog(self._path.with_name(f"{self._path.stem}.{day}{self._path.suffix}"))

    def _delete_old_files(self) -> None:
        name = re.compile(rf"{re.escape(self._path.stem)}\.(\d{{4}}-\d\d-\d\d){re.escape(self._path.suffix)}")
        oldest = (self._day - timedelta(days=self._keep_days - 1)).isoformat()
        try:
            for file in self._path.parent.iterdir():
                if (match := name.fullmatch(file.name)) and match[1] < oldest:
                    file.unlink()
        except OSError as error:
            raise LogError(f"cannot delete old episodes from {error.filename}: {error.strerror}") from error
