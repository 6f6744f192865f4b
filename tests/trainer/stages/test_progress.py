"""Progress reports: one line each, or on a terminal a bar that restores the cursor."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from trainer.stages.monitoring.progress import step_reporter


def format_metrics(logs: object) -> str:
    return "loss 0.250"


def test_without_a_terminal_every_report_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with step_reporter(lines.append, format_metrics) as reporter:
        state = SimpleNamespace(global_step=3, max_steps=8)
        reporter.on_train_begin(None, state, None)
        reporter.on_log(None, state, None, logs={"loss": 0.25})
        reporter.on_log(None, state, None, logs={"train_runtime": 1.0})
    assert lines == ["step 3/8, loss 0.250"]
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_counts_steps_and_an_interruption_restores_the_cursor() -> None:
    screen, lines = io.StringIO(), list[str]()
    console = Console(file=screen, force_terminal=True, width=100)

    def interrupted() -> None:
        with step_reporter(lines.append, format_metrics, console=console) as reporter:
            state = SimpleNamespace(global_step=3, max_steps=8)
            reporter.on_train_begin(None, state, None)
            reporter.on_step_end(None, state, None)
            reporter.on_log(None, state, None, logs={"loss": 0.25})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = screen.getvalue()
    assert "3/8" in text
    assert "loss 0.250" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert lines == []


def test_a_process_that_does_not_report_draws_nothing() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    with step_reporter(lambda _: None, format_metrics, enabled=False, console=console):
        pass
    assert screen.getvalue() == ""
