"""An episode log with an end: a file a day, and those of long ago removed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from agent.episode import Episode
from agent.errors import LogError
from agent.log import EpisodeLog


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


class DatedLog:
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
