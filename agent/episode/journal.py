"""The turn journal beside a log: what an interrupted run already paid for.

Every reply and every consultation is written down as it comes. A later run of the same settings takes them
from here instead of asking again. The first line holds the settings.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.episode.log import LineFile, numbered_lines, to_json_line
from agent.episode.schema import Consultation, Message, Turn
from agent.errors import LogError

Sample = tuple[str, int]
"""A prompt's id and the sample's index."""


class RecordedTurn(BaseModel):
    """A reply as it came, with what is known of its turn."""

    model_config = ConfigDict(extra="allow")

    turn: Turn
    message: Message
    model: str | None
    effective: dict[str, Any] | None = None


class _ToolResult(BaseModel):
    """What a tool of the caller's returned."""

    turn: int
    call_id: str
    text: str


class _Line(BaseModel):
    """One line: settings, or a recorded turn, consultation or tool result of a sample."""

    settings: dict[str, Any] | None = None
    prompt_id: str = ""
    sample_index: int = 0
    turn: RecordedTurn | None = None
    consultation: Consultation | None = None
    result: _ToolResult | None = None


class RecordedReplies:
    """What is known of one sample from before. This one remembers nothing; `Journal` has one that does."""

    def turn(self, index: int, request_digest: str) -> RecordedTurn | None:
        """The reply to this very request, if it was recorded."""
        return None

    def consultation(self, turn: int, call_id: str) -> Consultation | None:
        """The consultation made for this call, if it was recorded."""
        return None

    def result(self, turn: int, call_id: str) -> str | None:
        """What a tool of the caller's returned for this call, if it was recorded."""
        return None

    def save_turn(self, recorded: RecordedTurn) -> None:
        """Keep a reply."""

    def save_consultation(self, consultation: Consultation) -> None:
        """Keep a consultation."""

    def save_result(self, turn: int, call_id: str, text: str) -> None:
        """Keep what a tool of the caller's returned."""


class Journal:
    """The journal of one log, held by one run at a time.

    Raises:
        LogError: when another run holds it, or it was begun with other settings.
    """

    def __init__(self, log: Path, settings: dict[str, Any], finished: Collection[Sample]) -> None:
        """Open `<log>.journal`, or begin it; records of `finished` samples are dropped."""
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
            # A run that got no reply leaves nothing that other settings could be mixed with.
            begun = any(line.settings is None for line in lines)
            for line in lines:
                if (
                    begun
                    and line.settings is not None
                    and (changed := changed_settings(line.settings, settings))
                ):
                    raise LogError(settings_mismatch_message(log, changed))
            kept = [line for line in lines if (line.prompt_id, line.sample_index) not in finished]
            self._turns = {
                (x.prompt_id, x.sample_index, x.turn.turn.index): x.turn for x in kept if x.turn is not None
            }
            self._consultations = {
                (x.prompt_id, x.sample_index, x.consultation.turn, x.consultation.call_id): x.consultation
                for x in kept
                if x.consultation is not None
            }
            self._results = {
                (x.prompt_id, x.sample_index, x.result.turn, x.result.call_id): x.result.text
                for x in kept
                if x.result is not None
            }
            self._file = self._rewritten([line for line in kept if line.settings is None])
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
        """The memory of one sample."""
        return _SampleMemory(self, prompt_id, sample_index)

    def _read(self) -> list[_Line]:
        if not self.path.exists():
            return []
        lines = []
        for _, raw in numbered_lines(self.path):
            try:
                lines.append(_Line.model_validate_json(raw or b""))
            except ValidationError:
                continue  # a line that a kill cut off: its turn is asked again
        return lines

    def _rewritten(self, lines: list[_Line]) -> LineFile:
        """The file with its settings and `lines` only, replaced in one step, open for appending."""
        fresh = Path(f"{self.path}.new")
        fresh.unlink(missing_ok=True)
        file = LineFile(fresh)
        file.write(json.dumps({"settings": self._settings}, ensure_ascii=False).encode())
        for line in lines:
            file.write(_dump(line))
        fresh.replace(self.path)
        return file


class _SampleMemory(RecordedReplies):
    def __init__(self, journal: Journal, prompt_id: str, sample_index: int) -> None:
        self._journal = journal
        self._key = (prompt_id, sample_index)

    def turn(self, index: int, request_digest: str) -> RecordedTurn | None:
        found = self._journal._turns.get((*self._key, index))
        return found if found is not None and found.turn.request_digest == request_digest else None

    def consultation(self, turn: int, call_id: str) -> Consultation | None:
        return self._journal._consultations.get((*self._key, turn, call_id))

    def result(self, turn: int, call_id: str) -> str | None:
        return self._journal._results.get((*self._key, turn, call_id))

    def save_result(self, turn: int, call_id: str, text: str) -> None:
        self._save(result=_ToolResult(turn=turn, call_id=call_id, text=text))

    def save_turn(self, recorded: RecordedTurn) -> None:
        self._save(turn=recorded)

    def save_consultation(self, consultation: Consultation) -> None:
        self._save(consultation=consultation)

    def _save(self, **what: Any) -> None:
        prompt_id, sample_index = self._key
        self._journal._file.write(_dump(_Line(prompt_id=prompt_id, sample_index=sample_index, **what)))


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, each with its value before and now."""
    return {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def settings_mismatch_message(log: Path, changed: dict[str, tuple[Any, Any]]) -> str:
    """Why a log cannot be continued, in one sentence."""
    said = "; ".join(f"{name} was {_brief(was)}, now {_brief(now)}" for name, (was, now) in changed.items())
    return (
        f"{log} was begun with other settings ({said}): use another --log, or the settings it was begun with"
    )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    is_digest = isinstance(value, str) and len(value) == 64
    return value[:12] if is_digest else text


def _dump(line: _Line) -> bytes:
    return to_json_line(line, exclude_none=True)
