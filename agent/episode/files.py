"""Writes files that survive a kill: append-only lines, and whole files that appear in one step."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from agent.errors import LogError

MAX_LINE_BYTES = 64 * 1024 * 1024  # an episode of a long conversation takes a few hundred kilobytes


class LineFile:
    """A file that grows by whole lines and that only its owner can read (mode 0600).

    If a kill truncated the last line, opening the file ends that line with a newline, so that no later line
    is damaged.

    Raises:
        LogError: if the file cannot be opened or written.
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
        """Whether the last line was written in part, so that the next line must start after a newline."""
        if size and os.pread(self.fd, 1, size - 1) != b"\n":
            self.write(b"")

    def write(self, line: bytes) -> None:
        """Appends a line with one system call, so that neither a kill nor another writer can split it."""
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
        """Closes the file; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary file that replaces `path` when the block succeeds, and is removed when it fails.

    The file is private to its owner (mode 0600), keeps the suffix of `path`, and is flushed to disk before it
    replaces `path`. Other processes see either the old file or the complete new one.

    Raises:
        OSError: if the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def numbered_lines(path: Path | str) -> Iterator[tuple[int, bytes | None]]:
    """Yields the lines that are not blank with their numbers, from 1; None for a line that is too long.

    Raises:
        LogError: if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
                if number == 1:  # some editors write a byte order mark
                    line = line.removeprefix(codecs.BOM_UTF8)
                if too_long:
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, None
                elif line.strip():
                    yield number, line
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from error


def to_json_line(record: BaseModel, **options: Any) -> bytes:
    """Serialises a record as one line of JSON; unpaired surrogates become question marks."""
    try:
        return record.model_dump_json(**options).encode()
    except PydanticSerializationError:
        return json.dumps(record.model_dump(**options), ensure_ascii=False).encode("utf-8", "replace")


def _sync(path: Path) -> None:
    """Flushes a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
