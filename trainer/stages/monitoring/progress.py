"""Progress of a training run: a bar with the latest metrics on a terminal, else one line per report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Notify = Callable[[str], None]
"""Receives one line of progress for the user."""


def make_notifier(stage: str) -> Notify:
    """Returns a function that prints lines to standard error, so that standard output can be piped."""

    def notify(line: str) -> None:
        print(f"{stage}: {line}", file=sys.stderr, flush=True)

    return notify


def notify_from_rank_zero(notify: Notify, config: Any) -> Notify:
    """Returns `notify` on rank 0 of a run and a function that does nothing on the other ranks.

    Args:
        config: `transformers.TrainingArguments`.
    """
    return notify if config.process_index == 0 else lambda line: None


@contextmanager
def step_reporter(
    notify: Notify,
    format_metrics: Callable[[Mapping[str, float]], str],
    *,
    enabled: bool = True,
    console: Console | None = None,
) -> Iterator[Any]:
    """Yields a callback for transformers' Trainer that reports progress while the block runs.

    Args:
        notify: receives one line per report without a terminal.
        format_metrics: formats the metrics of a report.
        enabled: whether this process draws the bar; of several processes, one does.
        console: None for standard error.
    """
    from transformers import TrainerCallback

    console = console or Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("step"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=console,
        disable=not (enabled and console.is_terminal),
    )
    task = bar.add_task("training", total=None, metrics="")

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(task, total=state.max_steps, completed=state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.update(task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            bar.update(task, metrics=format_metrics(logs))
            if bar.disable:
                notify(f"step {state.global_step}/{state.max_steps}, {format_metrics(logs)}")

    with bar:
        yield Reporter()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Disables the libraries' progress bars, and the warning about a name that TRL uses and transformers 5.23
    renames."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning
        )
        yield
