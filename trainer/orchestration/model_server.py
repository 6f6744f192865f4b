"""Serves a model for a `with` block, and ends trainer processes together with their launcher."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck, StartError, run_server
from trainer.errors import TrainerError

TRANSFORMERS_SERVE = "transformers serve {model} --host 127.0.0.1 --port {port}"
STARTED_BY_VARIABLE = "ASCL_STARTED_BY"
"""Environment variable: process id of the `ascl-train` command that started a trainer's launcher
(`accelerate launch`)."""


class ServeError(TrainerError):
    """A server did not start."""


@contextlib.contextmanager
def serve_model(command: str, model: str, log: Path, *, start_seconds: float = 900) -> Iterator[str]:
    """Starts a model server and waits until it answers. Yields its base URL, which ends in `/v1`.

    Args:
        command: command with the placeholders `{model}` and `{port}`; a free local port is filled in.
        model: folder or name of the model.
        log: file to which the server's output is appended.
        start_seconds: time limit for loading the model.

    Raises:
        ServeError: the command is unknown, exits early or does not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # Only these two placeholders: other braces belong to the command, such as JSON.
    words = [word.replace("{port}", str(port)).replace("{model}", model) for word in _split(command)]
    origin = f"http://127.0.0.1:{port}"
    # Servers provide one URL or the other.
    ready = ReadinessCheck((f"{origin}/health", f"{origin}/v1/models"), start_seconds)
    with run_service(words, log, ready):
        yield f"{origin}/v1"


@contextlib.contextmanager
def run_service(
    words: list[str], log: Path, ready: ReadinessCheck, *, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """Runs a server like `evaluation.runtime.run_server`, but raises a `TrainerError`.

    Raises:
        ServeError: the command is unknown, exits early or does not answer in time.
    """
    try:
        with run_server(words, log, ready, environment=environment):
            yield
    except StartError as error:
        raise ServeError(str(error)) from None


def exit_with_launcher() -> None:
    """Makes a trainer exit when the launcher that started it exits: not every launcher forwards signals."""
    started_by = os.environ.get(STARTED_BY_VARIABLE)
    if started_by is None or DIE_WITH_PARENT is None:
        return
    DIE_WITH_PARENT()
    if os.getppid() == 1 and started_by != "1":  # the launcher ended before the call above
        raise SystemExit("ascl-train: the launcher of this training has ended")


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ServeError(f"the command `{command}` cannot be parsed: {error}") from None
