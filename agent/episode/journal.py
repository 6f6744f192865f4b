"""The turn journal beside a log: replies and tool results that an interrupted run already paid for.

A run writes every reply and every consultation to the journal as soon as it has it. A later run with the same
settings reads them from the journal instead of requesting them again. The first line contains the settings.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.episode.files import LineFile, numbered_lines, to_json_line, write_atomic
from agent.episode.schema import Consultation, Message, Turn
from agent.errors import LogError

Sample = tuple[str, int]
"""A prompt's id and the sample's index."""


class RecordedTurn(BaseModel):
    """A reply as the endpoint sent it, with the record of its turn."""

    model_config = ConfigDict(extra="allow")

    turn: Turn
    message: Message
    model: str | None
    effective: dict[str, Any] | None = None


class _ToolResult(BaseModel):
    """The result of a custom tool."""

    turn: int
    call_id: str
    text: str
    request: str | None = None
    """Name and arguments of the call; None in journals of earlier versions."""


class _Line(BaseModel):
    """One line: settings, or a recorded turn, consultation or tool result of a sample."""

    settings: dict[str, Any] | None = None
    prompt_id: str = ""
    sample_index: int = 0
    turn: RecordedTurn | None = None
    consultation: Consultation | None = None
    result: _ToolResult | None = None


class RecordedReplies:
    """Replies and results of one sample from an earlier run. This base class contains and records none."""

    def turn(self, index: int, request_digest: str) -> RecordedTurn | None:
        """Returns the reply to exactly this request; None if none was recorded."""
        return None

    def consultation(self, turn: int, call_id: str, arguments: str) -> Consultation | None:
        """Returns the consultation for this call; None if none was recorded with these arguments."""
        return None

    def result(self, turn: int, call_id: str, request: str) -> str | None:
        """Returns the result of a custom tool for this call; None if none was recorded for this request.

        `request` contains the name and the arguments of the call.
        """
        return None

    def save_turn(self, recorded: RecordedTurn) -> None:
        """Records a reply."""

    def save_consultation(self, consultation: Consultation) -> None:
        """Records a consultation."""

    def save_result(self, turn: int, call_id: str, request: str, text: str) -> None:
        """Records the result of a custom tool."""


class Journal:
    """The journal of one log. Only one run at a time may hold it.

    Raises:
        LogError: if another run holds it, or an earlier run with different settings wrote it.
    """

    def __init__(self, log: Path, settings: dict[str, Any], finished: Collection[Sample]) -> None:
        """Opens or creates `<log>.journal` and drops the records of `finished` samples."""
        self.path = Path(f"{log}.journal")
        self._settings = settings
        self._lock = LineFile(log)
        try:
            try:
                fcntl.flock(self._lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LogError(
                    f"another run is writing to {log}: wait for it, or use another --log"
                ) from error
            lines = self._read()
            self._check_settings(lines, log)
            remaining = [line for line in lines if (line.prompt_id, line.sample_index) not in finished]
            self._index(remaining)
            self._file = self._rewrite([line for line in remaining if line.settings is None])
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()

    def sample(self, prompt_id: str, sample_index: int) -> RecordedReplies:
        """Returns the recorded replies of one sample, to which the current run adds its own."""
        return _SampleReplies(self, prompt_id, sample_index)

    def _read(self) -> list[_Line]:
        if not self.path.exists():
            return []
        lines = []
        for _, raw in numbered_lines(self.path):
            try:
                lines.append(_Line.model_validate_json(raw or b""))
            except ValidationError:
                continue  # a kill truncated this line: the run repeats its request
        return lines

    def _check_settings(self, lines: list[_Line], log: Path) -> None:
        # A run that received no reply recorded nothing that could be mixed with other settings.
        if all(line.settings is not None for line in lines):
            return
        for line in lines:
            if line.settings is not None and (changed := changed_settings(line.settings, self._settings)):
                raise LogError(settings_mismatch_message(log, changed))

    def _index(self, lines: list[_Line]) -> None:
        self._turns = {
            (line.prompt_id, line.sample_index, line.turn.turn.index): line.turn
            for line in lines
            if line.turn is not None
        }
        self._consultations = {
            (line.prompt_id, line.sample_index, line.consultation.turn, line.consultation.call_id): (
                line.consultation
            )
            for line in lines
            if line.consultation is not None
        }
        self._results = {
            (line.prompt_id, line.sample_index, line.result.turn, line.result.call_id): line.result
            for line in lines
            if line.result is not None
        }

    def _rewrite(self, lines: list[_Line]) -> LineFile:
        """Replaces the file by its settings and `lines`, and opens it for appending."""
        try:
            with write_atomic(self.path) as path, LineFile(path) as file:
                file.write(json.dumps({"settings": self._settings}, ensure_ascii=False).encode())
                for line in lines:
                    file.write(_serialize(line))
        except OSError as error:
            raise LogError(f"cannot write {self.path}: {error.strerror}") from error
        return LineFile(self.path)


class _SampleReplies(RecordedReplies):
    def __init__(self, journal: Journal, prompt_id: str, sample_index: int) -> None:
        self._journal = journal
        self._key = (prompt_id, sample_index)

    def turn(self, index: int, request_digest: str) -> RecordedTurn | None:
        recorded = self._journal._turns.get((*self._key, index))
        return recorded if recorded is not None and recorded.turn.request_digest == request_digest else None

    def consultation(self, turn: int, call_id: str, arguments: str) -> Consultation | None:
        recorded = self._journal._consultations.get((*self._key, turn, call_id))
        # An id alone does not identify a call: another prompt, or a server that numbers its calls, repeats
        # it.
        if recorded is None or recorded.arguments != arguments:
            return None
        digest = self._journal._settings.get("rulebook_digest", recorded.digest)
        return recorded if recorded.digest in (None, digest) else None

    def result(self, turn: int, call_id: str, request: str) -> str | None:
        recorded = self._journal._results.get((*self._key, turn, call_id))
        return recorded.text if recorded is not None and recorded.request in (None, request) else None

    def save_result(self, turn: int, call_id: str, request: str, text: str) -> None:
        self._save(result=_ToolResult(turn=turn, call_id=call_id, text=text, request=request))

    def save_turn(self, recorded: RecordedTurn) -> None:
        self._save(turn=recorded)

    def save_consultation(self, consultation: Consultation) -> None:
        self._save(consultation=consultation)

    def _save(self, **record: Any) -> None:
        prompt_id, sample_index = self._key
        self._journal._file.write(_serialize(_Line(prompt_id=prompt_id, sample_index=sample_index, **record)))


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, each with its value before and now."""
    return {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def settings_mismatch_message(log: Path, changed: dict[str, tuple[Any, Any]]) -> str:
    """Returns one sentence that explains why a log cannot be continued."""
    changes = "; ".join(
        f"{name} was {_brief(was)}, now {_brief(now)}" for name, (was, now) in changed.items()
    )
    return (
        f"{log} was started with different settings ({changes}): use another --log, or the original settings"
    )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    is_digest = isinstance(value, str) and len(value) == 64
    return value[:12] if is_digest else text


def _serialize(line: _Line) -> bytes:
    return to_json_line(line, exclude_none=True)
