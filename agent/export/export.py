"""Exports a log to another format, or redacts it, and reports the skipped lines."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.episode import Episode, EpisodeLog, SkippedLine, iter_log, numbered_lines, write_atomic
from agent.errors import ExportError
from agent.export.consultations import consultation_rows
from agent.export.inspect_log import SUFFIXES, write_inspect
from agent.export.otel import to_otel_rows
from agent.export.redact import redact_episode
from agent.export.trl import write_trl

ExportFormat = Literal["trl", "inspect", "otel", "consultations"]


@dataclass
class ExportSummary:
    """Counts of an export."""

    out: str
    episodes: int = 0
    """Episodes read."""
    rows: int = 0
    """Rows, traces or episodes written."""
    skipped: list[SkippedLine] = field(default_factory=list)
    """Lines of the log that are not episodes."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the counts for JSON output."""
        return {"out": self.out, "episodes": self.episodes, "rows": self.rows, "skipped": len(self.skipped)}


def export_log(
    log: Path,
    form: ExportFormat,
    out: Path,
    *,
    content: bool,
    overwrite: bool,
    rewards: Path | None = None,
) -> ExportSummary:
    """Exports a log to another format.

    Args:
        log: the episode log.
        form: the format.
        out: the file to write.
        content: whether OpenTelemetry spans include texts.
        overwrite: whether to replace an existing file.
        rewards: output of `ascl-eval score` for this log; exported as scores to Inspect only.

    Raises:
        LogError: if the log or the rewards cannot be read.
        ExportError: if `out` exists, or cannot be written.
    """
    if form == "inspect" and out.suffix not in SUFFIXES:
        raise ExportError(
            f"Inspect opens files that end in {' or '.join(SUFFIXES)}, not {out.name}: rename --out"
        )
    rewards_by_id = read_rewards(rewards) if rewards is not None else {}
    summary = ExportSummary(str(out))
    with _output_file(out, log, overwrite) as path:
        if form == "trl":
            summary.rows = write_trl(_read(log, summary), path)
        elif form == "inspect":
            summary.rows = write_inspect(_read(log, summary), rewards_by_id, path)
        else:
            episodes = _read(log, summary)
            rows = (
                consultation_rows(episodes)
                if form == "consultations"
                else to_otel_rows(episodes, content=content)
            )
            with path.open("w", encoding="utf-8") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    summary.rows += 1
    return summary


def redact_log(log: Path, out: Path, *, overwrite: bool) -> ExportSummary:
    """Writes a copy of a log without its texts.

    Raises:
        LogError: if the log cannot be read, or the copy cannot be written.
        ExportError: if `out` exists, or cannot be written.
    """
    summary = ExportSummary(str(out))
    salt = secrets.token_hex(16)
    with _output_file(out, log, overwrite) as path, EpisodeLog(path) as copy:
        for episode in _read(log, summary):
            copy.append(redact_episode(episode, salt))
            summary.rows += 1
    return summary


def read_rewards(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the unchanged lines of `ascl-eval score` by episode id.

    Raises:
        LogError: if the file cannot be read.
        ExportError: at the first line that is not a reward.
    """
    rewards: dict[str, dict[str, Any]] = {}
    for number, line in numbered_lines(path):
        try:
            value = json.loads(line or b"")
            rewards[value["episode_id"]] = value
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ExportError(
                f"line {number} of {path} is not a reward: pass a file written by `ascl-eval score`"
            ) from None
    return rewards


def _read(log: Path, summary: ExportSummary) -> Iterator[Episode]:
    for episode in iter_log(log, summary.skipped.append):
        summary.episodes += 1
        yield episode


@contextmanager
def _output_file(out: Path, log: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary file that becomes `out` when the block succeeds."""
    if out.exists() and not out.is_file():
        raise ExportError(f"{out} is not a regular file: choose another --out")
    if out.exists() and (not overwrite or (log.exists() and out.samefile(log))):
        raise ExportError(f"{out} already exists: choose another --out, or pass --overwrite")
    try:
        with write_atomic(out) as path:
            yield path
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
