"""Progress display of a run."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.episode import Episode, episode_lines


class ProgressView:
    """Shows progress on standard error and, with `trace`, each finished episode on standard output."""

    def __init__(self, *, trace: bool) -> None:
        self._trace = trace
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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, finished: int, total: int, episode: Episode | None) -> None:
        """Shows that `finished` of `total` samples are finished, the last of them `episode`."""
        if episode is not None:
            self._modes["error" if episode.stop_reason == "error" else episode.mode] += 1
            if self._trace:
                for line in episode_lines(episode):
                    self._out.print(line, markup=False, soft_wrap=True)
        modes = ", ".join(f"{count} {mode}" for mode, count in self._modes.items() if count)
        self._progress.update(self._task, completed=finished, total=total, modes=modes)
