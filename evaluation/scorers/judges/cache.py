"""Caches judges' replies on disk by the digest of the request, so that none is paid for twice."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.episode import LineFile, numbered_lines


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    digest: str
    reply: str


class ReplyCache:
    """Append-only file of replies that survives a kill; use it as a context manager.

    Raises:
        LogError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replies: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self.path.exists():
            for _, raw in numbered_lines(self.path):
                try:
                    line = _Line.model_validate_json(raw or b"")
                except ValidationError:
                    continue  # a kill cut this line off: the request is sent again
                self._replies[line.digest] = line.reply
        self._file = LineFile(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, digest: str) -> str | None:
        """Returns the reply to a request; None if there is none."""
        return self._replies.get(digest)

    def put(self, digest: str, reply: str) -> None:
        """Stores a reply."""
        self._replies[digest] = reply
        self._file.write(_Line(digest=digest, reply=reply).model_dump_json().encode())
