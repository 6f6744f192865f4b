"""`ascl-agent export` and `redact`: a log into a file of another form, with what was left out said."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.episode import Episode, EpisodeLog, SkippedLine, iter_log, numbered_lines
from agent.errors import ExportError
from agent.export.consultations import consultation_rows
from agent.export.inspect_log import SUFFIXES, write_inspect
from agent.export.otel import to_otel_rows
from agent.export.redact import redacted
from agent.export.trl import write_trl

Form = Literal["trl", "inspect", "otel", "consultations"]


@dataclass
class Exported:
    """What an export did."""

    out: str
    episodes: int = 0
    """Episodes read."""
    rows: int = 0
    """Rows, traces or episodes written."""
    skipped: list[SkippedLine] = field(default_factory=list)
    """Lines of the log that hold no episode."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return {"out": self.out, "episodes": self.episodes, "rows": self.rows, "skipped": len(self.skipped)}


def export_log(
    log: Path, form: Form, out: Path, *, content: bool, overwrite: bool, rewards: Path | None = None
) -> Exported:
    """Write the log in another form; `rewards` stand in it where the form has a place for them.

    Raises:
        LogError: when the log or the rewards cannot be read.
        ExportError: when `out` is there already, or cannot be written.
    """
    if form == "inspect" and out.suffix not in SUFFIXES:
        raise ExportError(
            f"Inspect opens files that end in {' or '.join(SUFFIXES)}, not {out.name}: rename --out"
        )
    scored = read_reward_lines(rewards) if rewards is not None else {}
    done = Exported(str(out))
    with _fresh(out, log, overwrite) as path:
        if form == "trl":
            done.rows = write_trl(_read(log, done), path)
        elif form == "inspect":
            done.rows = write_inspect(_read(log, done), scored, path)
        else:
            episodes = _read(log, done)
            rows = (
                consultation_rows(episodes)
                if form == "consultations"
                else to_otel_rows(episodes, content=content)
            )
            with path.open("w", encoding="utf-8") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    done.rows += 1
    return done


def redact_log(log: Path, out: Path, *, overwrite: bool) -> Exported:
    """Write the log without its texts.

    Raises:
        LogError: when the log cannot be read or the new one not written.
        ExportError: when `out` is there already.
    """
    done = Exported(str(out))
    salt = secrets.token_hex(16)
    with _fresh(out, log, overwrite) as path, EpisodeLog(path) as new:
        for episode in _read(log, done):
            new.append(redacted(episode, salt))
            done.rows += 1
    return done


def read_reward_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of `ascl-eval score` by episode id, as they are.

    Raises:
        LogError: when the file cannot be read.
        ExportError: at the first line that is no reward.
    """
    rewards: dict[str, dict[str, Any]] = {}
    for number, line in numbered_lines(path):
        try:
            value = json.loads(line or b"")
            rewards[value["episode_id"]] = value
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ExportError(
                f"line {number} of {path} is no reward: pass what `ascl-eval score` wrote"
            ) from None
    return rewards


def _read(log: Path, done: Exported) -> Iterator[Episode]:
    for episode in iter_log(log, done.skipped.append):
        done.episodes += 1
        yield episode


@contextmanager
def _fresh(out: Path, log: Path, overwrite: bool) -> Iterator[Path]:
    """A file beside `out`, private to its owner, that becomes `out` when the block ends well."""
    if out.exists() and not out.is_file():
        raise ExportError(f"{out} is no ordinary file: choose another --out")
    if out.exists() and (not overwrite or (log.exists() and out.samefile(log))):
        raise ExportError(f"{out} is there already: choose another --out, or pass --overwrite")
    part = out.with_name(f".part-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}") from error
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
