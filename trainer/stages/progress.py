"""How a stage tells where it is: a bar with the last figures on a terminal, else a line a report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Notify = Callable[[str], None]
"""Takes one line for the person who waits."""


def make_notifier(stage: str) -> Notify:
    """Lines on standard error, so that standard output stays pipeable."""

    def tell(line: str) -> None:
        print(f"{stage}: {line}", file=sys.stderr, flush=True)

    return tell


@contextmanager
def step_reporter(
    say: Notify,
    figures: Callable[[Mapping[str, float]], str],
    *,
    shown: bool = True,
    console: Console | None = None,
) -> Iterator[Any]:
    """A callback of transformers' Trainer that tells how far training is, while the block runs.

    Args:
        say: takes a line a report where there is no terminal.
        figures: the figures of a report in words.
        shown: whether this process tells at all; of several, one does.
        console: left out: standard error.
    """
    from transformers import TrainerCallback

    console = console or Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("step"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not (shown and console.is_terminal),
    )
    task = bar.add_task("training", total=None, figures="")

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(task, total=state.max_steps, completed=state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            bar.update(task, figures=figures(logs))
            if bar.disable:
                say(f"step {state.global_step}/{state.max_steps}, {figures(logs)}")

    with bar:
        yield Reporter()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """No progress bars, and none of TRL's uses of names that transformers 5.23 renames."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning
        )
        yield
