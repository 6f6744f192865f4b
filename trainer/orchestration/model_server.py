"""Processes of ours: a model server for one `with` block, by any command, and trainers behind a launcher."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck, StartError
from evaluation.runtime import process as server_process
from trainer.errors import TrainerError

TRANSFORMERS = "transformers serve {model} --host 127.0.0.1 --port {port}"
STARTED_BY = "ASCL_STARTED_BY"
"""Tells a trainer behind a launcher (`accelerate launch`) which process of ours started the launcher."""


class ServeError(TrainerError):
    """A server that does not start."""


@contextlib.contextmanager
def serve_model(command: str, model: str, log: Path, *, start_seconds: float = 900) -> Iterator[str]:
    """Start a server of a model and wait until it answers: its base URL, with `/v1`.

    Args:
        command: with `{model}` and `{port}` in it; a free port of this machine is filled in.
        model: folder or name of the model.
        log: what the server prints is appended here.
        start_seconds: how long loading may take.

    Raises:
        ServeError: the command is unknown, ends early or does not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # These two alone: other braces are the command's own, such as JSON.
    words = [word.replace("{port}", str(port)).replace("{model}", model) for word in _split(command)]
    origin = f"http://127.0.0.1:{port}"
    # One or the other, by server.
    ready = ReadinessCheck((f"{origin}/health", f"{origin}/v1/models"), start_seconds)
    with supervise(words, log, ready):
        yield f"{origin}/v1"


@contextlib.contextmanager
def supervise(
    words: list[str], log: Path, ready: ReadinessCheck, *, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """`evaluation.server_process.running`, with an error of ours.

    Raises:
        ServeError: the command is unknown, ends early or does not answer in time.
    """
    try:
        with server_process.run_server(words, log, ready, environment=environment):
            yield
    except StartError as error:
        raise ServeError(str(error)) from None


def exit_with_launcher() -> None:
    """In a trainer behind a launcher of ours: end when the launcher ends, since it may pass no signal on."""
    started_by = os.environ.get(STARTED_BY)
    if started_by is None or DIE_WITH_PARENT is None:
        return
    DIE_WITH_PARENT()
    if os.getppid() == 1 and started_by != "1":
        raise SystemExit("ascl-train: what started this training has ended")  # before the kernel was asked


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ServeError(f"the command `{command}` cannot be read: {error}") from None
