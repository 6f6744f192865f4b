"""Prints episodes, runs and the quirks table on the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agent.endpoint import Quirks, quirk_columns, reasoning_text
from agent.episode import (
    Episode,
    consultation_line,
    earlier_calls,
    one_line,
    strip_control_characters,
    user_turn,
)
from agent.errors import LogError
from agent.rollout import RunSummary
from agent.tools import RULE_TOOL

GAP = "  "
MIN_CELL = 8
"""Minimum width of a shortened text cell, in columns."""
MIN_WIDTH = 20
"""Minimum width of the output, in columns, even on a narrower terminal."""


class StepView:
    """A progress bar on standard error for a known number of steps."""

    def __init__(self, steps: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[step]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=steps, step="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, name: str) -> None:
        """Advances the bar to the step with this name."""
        self._progress.update(self._task, advance=1, step=name)


def output_width() -> int | None:
    """Returns the width of the output in columns; None for a pipe or file, which receives whole texts.

    The environment variable COLUMNS overrides the width of any output.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return max(int(columns), MIN_WIDTH)
    return max(shutil.get_terminal_size().columns, MIN_WIDTH) if sys.stdout.isatty() else None


def print_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, cut: Sequence[int], right: Sequence[int] = ()
) -> None:
    """Prints rows in columns that fit the terminal.

    If they are wider, the columns in `cut` are shortened, marked by an ellipsis, and the others keep their
    width. If those do not fit either, each row becomes a paragraph, one line for each column.

    Args:
        cut: positions of columns with texts or names.
        right: positions of columns that are aligned on the right.
    """
    width = output_width()
    table = [[strip_control_characters(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(cell_len(row[at]) for row in table) for at in range(len(headings))]
    room = None if width is None else width - len(GAP) * (len(widths) - 1)
    while room is not None and sum(widths) > room:
        widest = max(cut, key=lambda at: widths[at], default=None)
        if widest is None or widths[widest] <= MIN_CELL:
            _print_paragraphs(table, cut, width or 0)
            return
        widths[widest] -= 1
    for row in table:
        cells = [_fit(cell, widths[at], right=at in right) for at, cell in enumerate(row)]
        print(GAP.join(cells).rstrip())


def _print_paragraphs(table: Sequence[Sequence[str]], cut: Sequence[int], width: int) -> None:
    headings, *rows = table
    names = max(map(cell_len, headings))
    for row in rows:
        title = GAP.join(row[at] for at in cut)
        print(_fit(title, min(width, cell_len(title))))
        for at, cell in enumerate(row):
            if at not in cut:
                line = f"  {_fit(headings[at], names)}{GAP}{cell}"
                print(_fit(line, min(width, cell_len(line))).rstrip())


def _fit(cell: str, width: int, *, right: bool = False) -> str:
    if cell_len(cell) > width:
        return set_cell_size(set_cell_size(cell, width - 1).rstrip() + "…", width)
    return " " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width)


def print_quirks(rows: Sequence[Quirks]) -> None:
    """Prints rows of the quirks table: a line per endpoint, or a paragraph on a narrow terminal."""
    columns = quirk_columns()
    print_columns(columns, [[str(getattr(row, column)) for column in columns] for row in rows], cut=(0,))


def summary_line(summary: RunSummary, log: Path) -> str:
    """Summarises a run in one line."""
    modes = ", ".join(f"{summary.modes.get(mode, 0)} {mode}" for mode in ("consult", "direct"))
    errors = summary.stop_reasons.get("error", 0)
    failed = f"; {errors} ended in an error: rerun the same command to retry them" if errors else ""
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(summary.without_rules.items()))
    unruled = sum(summary.without_rules.values())
    without = f"; {unruled} answered without rules that could not be consulted ({causes})" if unruled else ""
    new = "" if summary.asked == summary.episodes else f" ({summary.asked} new)"
    unasked = f"; {summary.unasked} later turns not asked" if summary.unasked else ""
    have = "has" if summary.cut_calls == 1 else "have"
    cut = (
        f"; {summary.cut_calls} {have} a call that --max-tokens cut off: raise it"
        if summary.cut_calls
        else ""
    )
    counts = f"{summary.episodes} episodes{new}: {modes}"
    return f"{log}: {counts}{failed}{unasked}{without}{cut} [{summary.seconds:.1f} s]"


def row(episode: Episode) -> dict[str, Any]:
    """Returns the main fields of an episode."""
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


def select(episodes: list[Episode], name: str, log: Path) -> Episode:
    """Returns the episode with this ID, ID prefix or `PROMPT_ID#SAMPLE`.

    Raises:
        LogError: if there is not exactly one.
    """
    samples = [e for e in episodes if f"{e.prompt_id}#{e.sample_index}" == name]
    matches = samples[-1:] or [e for e in episodes if e.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise LogError(f"{log} contains no episode {name!r}: `ascl-agent show {log}` lists its episodes")
    raise LogError(f"{len(matches)} IDs in {log} begin with {name!r}: pass a longer prefix")


def print_table(episodes: list[Episode]) -> None:
    """Prints one line for each episode."""
    rows = [
        [
            episode.id[:8],
            f"{episode.prompt_id}#{episode.sample_index}",
            episode.kind or "",
            episode.mode,
            episode.stop_reason,
            f"{episode.seconds:.1f}",
            one_line(episode.answer or "", 80),
        ]
        for episode in episodes
    ]
    print_columns(("id", "sample", "kind", "mode", "stop", "s", "answer"), rows, cut=(1, 6), right=(5,))


def print_episode(episode: Episode, *, stable: bool = False) -> None:
    """Prints a whole episode; `stable` omits the fields that differ between runs."""
    console = Console(highlight=False)

    def write(text: str, style: str = "") -> None:
        console.print(strip_control_characters(text), style=style, markup=False, soft_wrap=True)

    head = f"{episode.prompt_id}#{episode.sample_index}  {episode.kind or ''}".rstrip()
    endpoint = "" if stable else f" at {episode.endpoint}"
    write(head if stable else f"{episode.id}  {head}", "bold")
    write(f"model {episode.model_requested}{endpoint}, policy {episode.policy_version}", "dim")
    write(
        f"sampling {json.dumps(episode.sampling_sent)}, rulebook {(episode.rulebook_digest or 'none')[:12]}",
        "dim",
    )
    if place := _place(episode):
        write(place, "dim")
    for message in episode.messages:
        write(f"\n[{message.get('role')}]", "bold")
        if reasoning := reasoning_text(message):
            write(f"thinks: {reasoning}", "dim")
        if message.get("content"):
            write(str(message["content"]))
        for call in message.get("tool_calls") or []:
            write(f"calls {call['function']['name']}({call['function']['arguments']})")
    for consultation in episode.consultations:
        write(f"\nturn {consultation.turn}: {consultation_line(consultation, timed=not stable)}", "dim")
    if episode.error is not None:
        write(f"\nerror ({episode.error.boundary}, {episode.error.type}): {episode.error.message}", "red")
    duration = "" if stable else f", {episode.seconds:.1f} s"
    write(f"\n{episode.mode}, {episode.stop_reason}, {len(episode.turns)} turns{duration}", "dim")


def _place(episode: Episode) -> str:
    """Describes an episode's turn and the rules that the model had read before; "" for a single turn."""
    conversation, turn = episode.conversation, user_turn(episode)
    if conversation is None and turn == 1:
        return ""
    text = f"user turn {turn}"
    if conversation is not None:
        text += f" of {conversation.turns} in {conversation.id}"
        text += ", sent without the earlier ones" if conversation.history == "last" else ""
    turns = list(dict.fromkeys(call.user_turn for call in earlier_calls(episode, RULE_TOOL)))
    return text + (f", after rules read in turn {', '.join(map(str, turns))}" if turns else "")
