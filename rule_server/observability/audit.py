"""The audit log: one JSON line a consultation, written before the answer is given."""

from __future__ import annotations

import contextlib
import datetime
import hmac
import json
import logging
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.errors import AuditError, StartError
from rule_server.observability.context import CURRENT_CALLER
from rule_server.observability.pii import mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from rule_server.schemas import ConsultResponse
    from rule_server.settings import Settings

log = logging.getLogger(__name__)

DAY = datetime.timedelta(days=1)
_STAMP = "%Y%m%dT%H%M%S%fZ"
SHORTEST_KEY = 16


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class AuditLog:
    """Who asked when, which rulebook answered with which rules and scores; of the question, hash and length.

    A full or day-old file is set aside under the time of its first line, and removed when that is
    `audit_retention_days` ago or `audit_files` newer ones exist. So no line grows older than the setting.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime.datetime] = _utc) -> None:
        """Raises StartError when the file or its key cannot be had."""
        assert settings.audit_file is not None
        self._settings = settings
        self._file = settings.audit_file
        self._clock = clock
        self._handle = -1
        self._size = 0
        self._first: datetime.datetime | None = None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._key = self._load_key()
            self._open()
            self.tidy()
        except OSError as error:
            raise StartError(
                f"the audit log {self._file} cannot be written ({error.strerror}): name another audit_file"
            ) from None

    def write(self, situation: str, response: ConsultResponse) -> None:
        """Append a consultation. It is in the file, though perhaps not on the disk, when this returns.

        Raises:
            AuditError: when it could not be written; then the answer must not be given.
        """
        at = self._clock()
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "caller": CURRENT_CALLER.get().name,
            "digest": response.rulebook.digest,
            "verdict": response.verdict,
            "rules": [{"id": rule.id, "score": round(rule.score, 4)} for rule in response.rules],
            "length": len(situation),
            "hmac": hmac.digest(self._key, situation.encode("utf-8", "surrogatepass"), "sha256").hex(),
        }
        if self._settings.audit_text:
            line["situation"] = mask(situation) if self._settings.audit_mask else situation
        raw = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        try:
            self._follow()
            if self._first is not None and self._is_due(at, len(raw)):
                self.tidy(len(raw))
            written = os.write(self._handle, raw)
            self._size += written
            self._first = self._first or at
            if written != len(raw):
                self._end_line()
                raise OSError(0, "the disk is full")
        except OSError as error:
            log.error("the audit log cannot be written: %s", error.strerror)
            raise AuditError("the audit log cannot be written, so nothing is answered") from None

    def _follow(self) -> None:
        """Begin the file anew when somebody moved or removed it: lines must not go where nobody looks."""
        try:
            there = self._file.stat()
            if os.path.samestat(there, os.fstat(self._handle)):
                return
        except FileNotFoundError:
            pass
        self._open()

    def tidy(self, more: int = 0) -> None:
        """Set the file aside when it is due, and remove what is too old or too much. Raises OSError."""
        self._follow()
        now = self._clock()
        if self._first is not None and self._is_due(now, more):
            aside = self._aside(self._first)
            self._file.rename(aside)
            self._open()
        oldest = now - self._settings.audit_retention_days * DAY
        files = sorted(self.earlier())
        for number, (first, path) in enumerate(files):
            if first <= oldest or len(files) - number > self._settings.audit_files:
                path.unlink(missing_ok=True)

    def earlier(self) -> list[tuple[datetime.datetime, Path]]:
        """Files that were set aside, with the time of their first line."""
        name = re.compile(
            rf"{re.escape(self._file.stem)}\.(\d{{8}}T\d{{12}}Z)(?:-\d+)?{re.escape(self._file.suffix)}"
        )
        found = ((name.fullmatch(path.name), path) for path in self._file.parent.iterdir())
        return [
            (datetime.datetime.strptime(match[1], _STAMP).replace(tzinfo=datetime.UTC), path)
            for match, path in found
            if match
        ]

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _is_due(self, now: datetime.datetime, more: int) -> bool:
        assert self._first is not None
        return now - self._first >= DAY or self._size + more > self._settings.audit_max_bytes

    def _aside(self, first: datetime.datetime) -> Path:
        stem, suffix = f"{self._file.stem}.{first.strftime(_STAMP)}", self._file.suffix
        path, number = self._file.with_name(stem + suffix), 1
        while path.exists():
            path, number = self._file.with_name(f"{stem}-{number}{suffix}"), number + 1
        return path

    def _open(self) -> None:
        handle = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(handle, 0o600)
        except OSError:
            os.close(handle)
            raise
        # Only now, so that a file that cannot be had at the moment is asked for again by the next line.
        self.close()
        self._handle = handle
        self._size = os.fstat(self._handle).st_size
        self._first = self._first_time() if self._size else None
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            self._end_line()

    def _end_line(self) -> None:
        # A torn line stays, as one that nobody can read; the next must not become a part of it.
        self._size += os.write(self._handle, b"\n")

    def _first_time(self) -> datetime.datetime:
        line = os.pread(self._handle, 200, 0)
        found = re.match(rb'\{"at":"([0-9T:.-]{19,26})Z"', line)
        if found is not None:
            with contextlib.suppress(ValueError):
                return datetime.datetime.fromisoformat(found[1].decode()).replace(tzinfo=datetime.UTC)
        return datetime.datetime.fromtimestamp(os.fstat(self._handle).st_mtime, datetime.UTC)

    def _load_key(self) -> bytes:
        """The key of the hashes: of the setting's file, else one beside the log, made when there is none."""
        named = self._settings.audit_key_file
        path = named or self._file.with_name(self._file.name + ".key")
        if named is None and not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(secrets.token_hex(32).encode())
        key = path.read_bytes().strip()
        if len(key) < SHORTEST_KEY:
            raise StartError(f"the audit key {path} is shorter than {SHORTEST_KEY} bytes: write a longer one")
        return key
