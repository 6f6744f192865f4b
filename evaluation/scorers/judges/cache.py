"""Replies of judges by the digest of what was asked, on disk: nothing is asked twice, whatever breaks off."""

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
    """An append-only file of replies, safe against a kill; use as a context manager.

    Raises:
        LogError: when the file cannot be read or written.
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
                    continue  # a line that a kill cut off: it is asked again
                self._replies[line.digest] = line.reply
        self._file = LineFile(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, digest: str) -> str | None:
        """The reply to what was asked, or None."""
        return self._replies.get(digest)

    def put(self, digest: str, reply: str) -> None:
        """Keep a reply."""
        self._replies[digest] = reply
        self._file.write(_Line(digest=digest, reply=reply).model_dump_json().encode())
