"""The audit log: one JSON line per consultation, written before the response is sent."""

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

MAX_FILE_AGE = datetime.timedelta(days=1)
MIN_KEY_BYTES = 16
_STAMP = "%Y%m%dT%H%M%S%fZ"


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class AuditLog:
    """Records the caller, time, rulebook, rules and scores; of the question only hash and length, by default.

    A file that is full or a day old is rotated: renamed after the time of its first line. It is removed once
    that time is `audit_retention_days` ago or `audit_files` newer files exist, so no line outlives the
    setting.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime.datetime] = _utc) -> None:
        """Opens the log. Raises StartError when the file or its key cannot be opened."""
        assert settings.audit_file is not None
        self._settings = settings
        self._file = settings.audit_file
        self._clock = clock
        self._handle = -1
        self._size = 0
        self._first_at: datetime.datetime | None = None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._key = self._load_key()
            self._open()
            self.rotate()
        except OSError as error:
            raise StartError(
                f"the audit log {self._file} cannot be written ({error.strerror}): name another audit_file"
            ) from None

    def write(self, situation: str, response: ConsultResponse) -> None:
        """Appends a consultation. On return it is in the file, but not necessarily on disk.

        Raises:
            AuditError: the line could not be written. The response must then not be sent.
        """
        at = self._clock()
        entry: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "caller": CURRENT_CALLER.get(),
            "digest": response.rulebook.digest,
            "verdict": response.verdict,
            "rules": [{"id": rule.id, "score": round(rule.score, 4)} for rule in response.rules],
            "length": len(situation),
            "hmac": hmac.digest(self._key, situation.encode("utf-8", "surrogatepass"), "sha256").hex(),
        }
        if self._settings.audit_text:
            entry["situation"] = mask(situation) if self._settings.audit_mask else situation
        raw = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
        try:
            self._reopen_if_moved()
            if self._first_at is not None and self._rotation_due(at, len(raw)):
                self.rotate(len(raw))
            written = os.write(self._handle, raw)
            self._size += written
            self._first_at = self._first_at or at
            if written != len(raw):
                self._end_torn_line()
                raise OSError(0, "the disk is full")
        except OSError as error:
            log.error("the audit log cannot be written: %s", error.strerror)
            raise AuditError("the audit log cannot be written, so nothing is answered") from None

    def _reopen_if_moved(self) -> None:
        """Opens a new file when another process moved or removed the old one, so that no line is lost."""
        try:
            status = self._file.stat()
            if os.path.samestat(status, os.fstat(self._handle)):
                return
        except FileNotFoundError:
            pass
        self._open()

    def rotate(self, new_bytes: int = 0) -> None:
        """Rotates the file if it is due, and removes rotated files that are too old or too many.

        `new_bytes` is the size of the next line. Raises OSError.
        """
        self._reopen_if_moved()
        now = self._clock()
        if self._first_at is not None and self._rotation_due(now, new_bytes):
            self._file.rename(self._rotated_path(self._first_at))
            self._open()
        oldest = now - datetime.timedelta(days=self._settings.audit_retention_days)
        files = sorted(self.rotated_files())
        for number, (first_at, path) in enumerate(files):
            if first_at <= oldest or len(files) - number > self._settings.audit_files:
                path.unlink(missing_ok=True)

    def rotated_files(self) -> list[tuple[datetime.datetime, Path]]:
        """Returns the rotated files with the time of their first line."""
        name = re.compile(
            rf"{re.escape(self._file.stem)}\.(\d{{8}}T\d{{12}}Z)(?:-\d+)?{re.escape(self._file.suffix)}"
        )
        matches = ((name.fullmatch(path.name), path) for path in self._file.parent.iterdir())
        return [
            (datetime.datetime.strptime(match[1], _STAMP).replace(tzinfo=datetime.UTC), path)
            for match, path in matches
            if match
        ]

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _rotation_due(self, now: datetime.datetime, new_bytes: int) -> bool:
        assert self._first_at is not None
        too_large = self._size + new_bytes > self._settings.audit_max_bytes
        return now - self._first_at >= MAX_FILE_AGE or too_large

    def _rotated_path(self, first_at: datetime.datetime) -> Path:
        stem, suffix = f"{self._file.stem}.{first_at.strftime(_STAMP)}", self._file.suffix
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
        # The old handle stays until here: if opening fails, the next line tries again.
        self.close()
        self._handle = handle
        self._size = os.fstat(self._handle).st_size
        self._first_at = self._read_first_time() if self._size else None
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            self._end_torn_line()

    def _end_torn_line(self) -> None:
        # The torn line stays unreadable; the newline keeps the next line separate from it.
        self._size += os.write(self._handle, b"\n")

    def _read_first_time(self) -> datetime.datetime:
        line = os.pread(self._handle, 200, 0)
        match = re.match(rb'\{"at":"([0-9T:.-]{19,26})Z"', line)
        if match is not None:
            with contextlib.suppress(ValueError):
                return datetime.datetime.fromisoformat(match[1].decode()).replace(tzinfo=datetime.UTC)
        return datetime.datetime.fromtimestamp(os.fstat(self._handle).st_mtime, datetime.UTC)

    def _load_key(self) -> bytes:
        """Reads the hash key from the configured file, else from one beside the log, created if missing."""
        configured = self._settings.audit_key_file
        path = configured or self._file.with_name(self._file.name + ".key")
        if configured is None and not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(secrets.token_hex(32).encode())
        key = path.read_bytes().strip()
        if len(key) < MIN_KEY_BYTES:
            raise StartError(
                f"the audit key {path} is shorter than {MIN_KEY_BYTES} bytes: write a longer one"
            )
        return key
