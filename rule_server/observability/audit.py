"""The audit log: one JSON line per consultation, written before the response is sent."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hmac
import json
import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.errors import AuditError, StartError
from rule_server.observability.background_writer import BackgroundWriter
from rule_server.observability.context import CURRENT_CALLER
from rule_server.observability.pii import mask
from rule_server.schemas import ConsultResponse, NearestResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from rule_server.settings import Settings

log = logging.getLogger(__name__)

MAX_FILE_AGE = datetime.timedelta(days=1)
MIN_KEY_BYTES = 16
WRITE_TIMEOUT = 5.0
"""Seconds after which a consultation is refused because the disk does not take its line."""
ROTATION_RETRY = datetime.timedelta(minutes=1)
"""Time after a failed rotation before a write tries again."""
_COPY_BYTES = 1 << 20
_LINE_START = re.compile(rb'\{"at":"(20[0-9T:.-]{17,24})Z"')
"""Start of a line. It cannot occur within a line, where JSON escapes the quotes."""
_STAMP = "%Y%m%dT%H%M%S%fZ"


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class AuditLog:
    """Records caller, time, rulebook, rules and scores; by default only the question's hash and length.

    A file that is full or a day old is rotated: renamed after the time of its first line, or copied and
    emptied if it cannot be renamed because it is a mount point. It is removed once that time is
    `audit_retention_days` ago or `audit_files` newer files exist, so no line outlives the setting. A pipe or
    device stores no lines and is not rotated.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime.datetime] = _utc) -> None:
        """Opens the log and tries its rotation.

        Raises:
            StartError: the file or its key cannot be opened, or the file could not be rotated later.
        """
        assert settings.audit_file is not None
        self.error: str | None = None
        """Reason why the last rotation failed. Lines are still written, but may outlive the retention."""
        self._settings = settings
        self._clock = clock
        self._writer = BackgroundWriter(WRITE_TIMEOUT)
        self._handle = -1
        self._size = 0
        self._first_at: datetime.datetime | None = None
        self._retry_at = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self._file = settings.audit_file
        try:
            self._stores_lines = not self._file.exists() or self._file.is_file()
            if self._stores_lines:
                # A rename would only move a link, and leave the lines where retention does not find them.
                self._file = self._file.resolve()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._key = self._load_key()
            self._open()
            self._try_rotation()
            self.rotate()
        except OSError as error:
            raise StartError(
                f"the audit log {self._file} cannot be written ({error.strerror}): name another audit_file"
            ) from None

    @property
    def problem(self) -> str | None:
        """Reason why lines cannot be written or removed at present; None if they can."""
        if self._writer.hangs:
            return f"the audit log {self._file} cannot be written, because its disk does not respond"
        return self.error

    async def record(
        self, situation: str, response: ConsultResponse | NearestResponse, *, request: str | None = None
    ) -> None:
        """Appends a consultation, or a request of another kind, without blocking the event loop.

        On return it is in the file, but not necessarily on disk.

        Raises:
            AuditError: the line could not be written. The response must then not be sent.
        """
        at = self._clock()
        line = self._line(at, situation, response, request)
        try:
            await self._writer.run(lambda: self._append(line, at))
        except TimeoutError:
            log.error("the audit log cannot be written: its disk does not respond")
            raise AuditError(
                f"the audit log could not be written within {self._writer.limit:g} s, so nothing is answered"
            ) from None

    async def rotate_in_background(self) -> None:
        """Calls `rotate` without blocking the event loop. Raises OSError if it fails or hangs."""
        await self._writer.run(self.rotate)

    async def finish(self) -> None:
        """Writes the lines in the queue and closes the file, unless its disk hangs."""
        if await self._writer.close():
            self.close()

    def write(self, situation: str, response: ConsultResponse | NearestResponse) -> None:
        """Like `record`, but blocks until the line is written."""
        at = self._clock()
        self._append(self._line(at, situation, response, None), at)

    def _line(
        self,
        at: datetime.datetime,
        situation: str,
        response: ConsultResponse | NearestResponse,
        request: str | None,
    ) -> bytes:
        entry: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "caller": CURRENT_CALLER.get(),
            "digest": response.rulebook.digest,
            "verdict": _verdict(response),
            "rules": [{"id": rule.id, "score": round(rule.score, 4)} for rule in response.rules],
            "length": len(situation),
            "hmac": hmac.digest(self._key, situation.encode("utf-8", "surrogatepass"), "sha256").hex(),
        }
        if response.reason is not None:
            entry["reason"] = response.reason
        if request is not None:
            entry["request"] = request
        if self._settings.audit_text:
            entry["situation"] = mask(situation) if self._settings.audit_mask else situation
        return (json.dumps(entry, separators=(",", ":")) + "\n").encode()

    def _append(self, raw: bytes, at: datetime.datetime) -> None:
        try:
            self._reopen_if_moved()
            if self._rotation_due(at, len(raw)) and at >= self._retry_at:
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

        `new_bytes` is the size of the next line. A rotation that fails sets `error` and is tried again later.

        Raises:
            OSError: the file was moved, and no new one can be opened.
        """
        self._reopen_if_moved()
        if not self._stores_lines:
            return
        now = self._clock()
        try:
            if self._rotation_due(now, new_bytes):
                self._start_new_file(now)
            self._remove_old_files(now)
        except OSError as error:
            self._retry_at = now + ROTATION_RETRY
            if self.error is None:
                log.error("the audit log cannot be rotated: %s", error.strerror)
            self.error = (
                f"the audit log {self._file} cannot be rotated ({error.strerror}), so lines may be kept "
                "longer than audit_retention_days: let the service write its folder"
            )
        else:
            self.error = None

    def _start_new_file(self, now: datetime.datetime) -> None:
        """Moves the lines to a rotated file: renames the file, else copies its lines and empties it."""
        path = self._rotated_path(now)
        try:
            self._file.rename(path)
        except OSError:
            self._copy_lines(path)
            os.ftruncate(self._handle, 0)
        self._open()

    def _copy_lines(self, path: Path) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as copy:
                offset = 0
                while data := os.pread(self._handle, _COPY_BYTES, offset):
                    copy.write(data)
                    offset += len(data)
                copy.flush()
                os.fsync(handle)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _remove_old_files(self, now: datetime.datetime) -> None:
        oldest = now - datetime.timedelta(days=self._settings.audit_retention_days)
        files = sorted(self.rotated_files())
        for number, (first_at, path) in enumerate(files):
            if first_at <= oldest or len(files) - number > self._settings.audit_files:
                _empty(path)  # a hard link would keep the lines
                path.unlink(missing_ok=True)

    def _try_rotation(self) -> None:
        """Renames the file to its rotated name and back, else creates and removes a file of that name.

        A kill in between leaves a rotated file. Raises StartError when the file could not be rotated.
        """
        if not self._stores_lines:
            return
        path = self._rotated_path(self._clock())
        try:
            self._file.rename(path)
            path.rename(self._file)
        except OSError as rename_error:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                path.unlink()
            except OSError as error:
                raise StartError(
                    f"the audit log {self._file} could not be rotated ({error.strerror}), so lines would be "
                    "kept longer than audit_retention_days: let the service write the folder, and mount "
                    "that instead of the file alone"
                ) from None
            log.info(
                "the audit log is rotated by copying, because it cannot be renamed: %s", rename_error.strerror
            )

    def rotated_files(self) -> list[tuple[datetime.datetime, Path]]:
        """Returns the rotated files with the time of their first line."""
        name = re.compile(
            rf"{re.escape(self._file.stem)}\.(\d{{8}}T\d{{12}}Z)(?:-\d+)?{re.escape(self._file.suffix)}"
        )
        files = []
        for path in self._file.parent.iterdir():
            if (match := name.fullmatch(path.name)) is not None:
                with contextlib.suppress(ValueError):  # a name of someone else, with a thirteenth month
                    at = datetime.datetime.strptime(match[1], _STAMP).replace(tzinfo=datetime.UTC)
                    files.append((at, path))
        return files

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _rotation_due(self, now: datetime.datetime, new_bytes: int) -> bool:
        if self._first_at is None or not self._stores_lines:
            return False
        too_large = self._size + new_bytes > self._settings.audit_max_bytes
        # A time in the future is of a clock that was wrong: waiting for it would keep the lines for years.
        return abs(now - self._first_at) >= MAX_FILE_AGE or too_large

    def _rotated_path(self, now: datetime.datetime) -> Path:
        first_at = min(self._first_at or now, now)
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
        self._size = os.fstat(self._handle).st_size if self._stores_lines else 0
        self._first_at = self._read_first_time() if self._size else None
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            self._end_torn_line()

    def _end_torn_line(self) -> None:
        # The torn line stays unreadable; the newline keeps the next line separate from it.
        self._size += os.write(self._handle, b"\n")

    def _read_first_time(self) -> datetime.datetime:
        """Returns the time of the first readable line, else the time of the last change of the file."""
        offset = 0
        while data := os.pread(self._handle, _COPY_BYTES, offset):
            for match in _LINE_START.finditer(data):
                with contextlib.suppress(ValueError):
                    return datetime.datetime.fromisoformat(match[1].decode()).replace(tzinfo=datetime.UTC)
            if len(data) < _COPY_BYTES:
                break
            offset += _COPY_BYTES - 64  # a line may start at the end of one piece
        return datetime.datetime.fromtimestamp(os.fstat(self._handle).st_mtime, datetime.UTC)

    def _load_key(self) -> bytes:
        """Reads the hash key from the configured file, else from one beside the log, created if missing."""
        configured = self._settings.audit_key_file
        named = self._settings.audit_file
        assert named is not None
        path = configured or named.with_name(named.name + ".key")
        if configured is None and not path.exists():
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise StartError(
                    f"the audit key {path} cannot be written ({error.strerror}): set audit_key_file to "
                    "a key file, or let the service write the folder"
                ) from None
            with os.fdopen(handle, "wb") as out:
                out.write(secrets.token_hex(32).encode())
        key = path.read_bytes().strip()
        if len(key) < MIN_KEY_BYTES:
            raise StartError(
                f"the audit key {path} is shorter than {MIN_KEY_BYTES} bytes: write a longer one"
            )
        return key


def _verdict(response: ConsultResponse | NearestResponse) -> str:
    """Returns the verdict, for the nearest rules the one of a consultation with the same scores."""
    if isinstance(response, ConsultResponse):
        return response.verdict
    applies = any(rule.score >= response.threshold for rule in response.rules)
    return "rules_found" if applies else "no_applicable_rule"


def _empty(path: Path) -> None:
    """Removes the content of a regular file. A link is left alone: it may lead to any file."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return
        raise
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)
