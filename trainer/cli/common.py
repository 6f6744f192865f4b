"""Helpers of the `ascl-train` commands: one-sentence errors, the `--json` flag, and process settings."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import NoReturn

from evaluation.cli import common
from evaluation.cli.common import AsJson

__all__ = ["AsJson", "exit_on_error", "fail", "is_rank_zero", "let_idle_threads_sleep"]

COMMAND = "ascl-train"


def exit_on_error() -> AbstractContextManager[None]:
    """Prints an error that the user can fix as one sentence, and exits with code 1."""
    from trainer.errors import TrainerError

    return common.exit_on_error(command=COMMAND, extra="train", also=(TrainerError,))


def fail(message: str, code: int) -> NoReturn:
    """Prints an error to standard error and exits with `code`."""
    common.fail(message, code, command=COMMAND)


def let_idle_threads_sleep() -> None:
    """Stops idle OpenMP threads from spinning, which halves the speed of a busy machine.

    Call it before torch loads, which reads the variable.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def is_rank_zero() -> bool:
    """Returns whether this process has rank 0, which prints the result of a distributed run."""
    return os.environ.get("RANK", "0") == "0"
