"""Episodes and runs on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from agent.endpoint import Quirks, quirk_columns, reasoning_text
from agent.episode import Episode, consultation_line, one_line, strip_control_characters
from agent.errors import LogError
from agent.rollout import RunSummary


class StepView:
    """A bar on standard error for a command of a known number of steps."""

    def __init__(self, steps: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=steps, what="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, what: str) -> None:
        """Say what comes next."""
        self._progress.update(self._task, advance=1, what=what)


def print_quirks(rows: Sequence[Quirks]) -> None:
    """The quirks table, one endpoint a line."""
    table = Table(box=None, pad_edge=False)
    for column in quirk_columns():
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(escape(str(getattr(row, column))) for column in quirk_columns()))
    # Cells cut short would say nothing; a narrow terminal wraps the lines instead.
    Console(highlight=False, width=max(160, Console().width)).print(table)


def summary_line(summary: RunSummary, log: Path) -> str:
    """What a run did, in one line."""
    modes = ", ".join(f"{summary.modes.get(mode, 0)} {mode}" for mode in ("consult", "direct"))
    errors = summary.stop_reasons.get("error", 0)
    again = f"; {errors} ended in an error, the same command asks them again" if errors else ""
    fresh = "" if summary.asked == summary.episodes else f" ({summary.asked} asked now)"
    return f"{log}: {summary.episodes} episodes{fresh}: {modes}{again} [{summary.seconds:.1f} s]"


def row(episode: Episode) -> dict[str, Any]:
    """An episode in a few fields."""
    return {
        "id": episode.id,
        "prompt_id": episode.prompt_id,
        "sample_index": episode.sample_index,
        "kind": episode.kind,
        "mode": episode.mode,
        "stop_reason": episode.stop_reason,
        "consultations": len(episode.consultations),
        "turns": len(episode.turns),
        "seconds": round(episode.seconds, 3),
        "answer": episode.answer,
    }


def select(episodes: list[Episode], wanted: str, log: Path) -> Episode:
    """The episode with this id, beginning of an id, or `PROMPT_ID#SAMPLE`.

    Raises:
        LogError: when there is not exactly one.
    """
    named = [e for e in episodes if f"{e.prompt_id}#{e.sample_index}" == wanted]
    found = named[-1:] or [e for e in episodes if e.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LogError(f"{log} holds no episode {wanted!r}: `ascl-agent show {log}` lists what it holds")
    raise LogError(f"{wanted!r} begins {len(found)} ids of {log}: give more of it")


def print_table(episodes: list[Episode]) -> None:
    """One line for each episode."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "sample", "kind", "mode", "stop", "s", "answer"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "s" else "left")
    for episode in episodes:
        cells = [
            episode.id[:8],
            f"{episode.prompt_id}#{episode.sample_index}",
            episode.kind or "",
            episode.mode,
            episode.stop_reason,
            f"{episode.seconds:.1f}",
            one_line(episode.answer or "", 80),
        ]
        table.add_row(*(escape(cell) for cell in cells))
    Console(highlight=False).print(table)


def print_episode(episode: Episode, *, stable: bool = False) -> None:
    """The whole conversation, and what stands around it; `stable` leaves out what differs from run to run."""
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(strip_control_characters(text), style=style, markup=False, soft_wrap=True)

    head = f"{episode.prompt_id}#{episode.sample_index}  {episode.kind or ''}".rstrip()
    place = "" if stable else f" at {episode.endpoint}"
    say(head if stable else f"{episode.id}  {head}", "bold")
    say(f"model {episode.model_requested}{place}, policy {episode.policy_version}", "dim")
    say(
        f"sampling {json.dumps(episode.sampling_sent)}, rulebook {(episode.rulebook_digest or 'none')[:12]}",
        "dim",
    )
    for message in episode.messages:
        say(f"\n[{message.get('role')}]", "bold")
        if thought := reasoning_text(message):
            say(f"thinks: {thought}", "dim")
        if message.get("content"):
            say(str(message["content"]))
        for call in message.get("tool_calls") or []:
            say(f"calls {call['function']['name']}({call['function']['arguments']})")
    for consultation in episode.consultations:
        say(f"\nturn {consultation.turn}: {consultation_line(consultation, timed=not stable)}", "dim")
    if episode.error is not None:
        say(f"\nerror ({episode.error.boundary}, {episode.error.type}): {episode.error.message}", "red")
    took = "" if stable else f", {episode.seconds:.1f} s"
    say(f"\n{episode.mode}, {episode.stop_reason}, {len(episode.turns)} turns{took}", "dim")
