"""Progress display of a run: a bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.episode import Episode, episode_lines

LINE_SECONDS = 15.0
"""Seconds between two lines without a terminal."""


class ProgressView:
    """Shows progress on standard error and, with `trace`, each finished episode on standard output.

    Without a terminal, a line every `interval` seconds gives the counts, even while no episode finishes: a
    slow endpoint must not look like a dead one.
    """

    def __init__(self, *, trace: bool, interval: float = LINE_SECONDS) -> None:
        self._trace, self._interval = trace, interval
        self._out = Console(highlight=False)
        console = self._out if trace and self._out.is_terminal else Console(stderr=True)
        self._progress = Progress(
            TextColumn("episodes"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[modes]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._modes = {"consult": 0, "direct": 0, "error": 0}
        self._task = self._progress.add_task("episodes", total=None, modes="")
        self._finished, self._total, self._earlier = 0, 0, 0
        self._started = time.monotonic()
        self._ended = threading.Event()
        # A thread, so that lines appear on time even if the run's event loop is busy.
        self._lines = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        if self._progress.disable:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._progress.disable:
            self._lines.join()
        self._progress.stop()

    def update(self, finished: int, total: int, episode: Episode | None) -> None:
        """Shows that `finished` of `total` samples are finished, the last of them `episode`."""
        if episode is None:
            self._earlier, self._started = finished, time.monotonic()
        else:
            self._modes["error" if episode.stop_reason == "error" else episode.mode] += 1
            if self._trace:
                for line in episode_lines(episode):
                    self._out.print(line, markup=False, soft_wrap=True)
        self._finished, self._total = finished, total
        self._progress.update(self._task, completed=finished, total=total, modes=self._mode_counts())

    def _mode_counts(self) -> str:
        return ", ".join(f"{count} {mode}" for mode, count in self._modes.items() if count)

    def _print_lines(self) -> None:
        while not self._ended.wait(self._interval):
            if self._total:
                print(f"ascl-agent: {self._line()}", file=sys.stderr, flush=True)

    def _line(self) -> str:
        seconds, new = time.monotonic() - self._started, self._finished - self._earlier
        modes = f" ({self._mode_counts()})" if new else ""
        # The first episodes of a run finish late, because many begin at once.
        known = new * 5 >= self._total - self._earlier
        left = f", about {seconds / new * (self._total - self._finished):.0f} s left" if known else ""
        return f"{self._finished} of {self._total} episodes{modes} after {seconds:.0f} s{left}"
