"""A model server as a process of ours for one `with` block: `transformers serve`, `vllm serve` or another."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import TrainerError

TRANSFORMERS = "transformers serve {model} --host 127.0.0.1 --port {port}"


class ServeError(TrainerError):
    """A server that does not start."""


@contextlib.contextmanager
def serving(command: str, model: str, log: Path, *, start_seconds: float = 900) -> Iterator[str]:
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
    words = [word.format(model=model, port=port) for word in _split(command)]
    origin = f"http://127.0.0.1:{port}"
    # One or the other, by server.
    ready = Answer((f"{origin}/health", f"{origin}/v1/models"), start_seconds)
    with running(words, log, ready):
        yield f"{origin}/v1"


@dataclass(frozen=True)
class Answer:
    """What says that a server is ready: one of these URLs answers 200 within `seconds`."""

    urls: tuple[str, ...]
    seconds: float = 900

    def given(self) -> bool:
        """Whether it does now."""
        import httpx2

        for url in self.urls:
            try:
                if httpx2.get(url, timeout=5).status_code == 200:
                    return True
            except httpx2.TransportError:
                return False
        return False


_LIBC = ctypes.CDLL(None)  # loaded before any fork
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with_parent() -> None:
    """In the new process: be sent SIGTERM by the kernel when the parent ends, however it does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def running(
    words: list[str], log: Path, ready: Answer, *, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a server, in a process group of its own, while the block runs.

    On Linux it ends with us even where we are killed outright, so that no forgotten server keeps the memory
    that the next try needs.

    Raises:
        ServeError: the command is unknown, ends early or does not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [_program(words[0]), *words[1:]],
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                env=environment,
            )
        except OSError as error:
            raise ServeError(f"the server '{words[0]}' cannot be started: {error.strerror}") from None
    try:
        deadline = time.monotonic() + ready.seconds
        while not ready.given():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = process.poll() is not None
                raise ServeError(
                    f"the server '{words[0]}' {'ended' if ended else 'did not answer in time'} while it "
                    f"started; the end of {log} says why: {_last_line(log)}"
                )
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ServeError(f"the command `{command}` cannot be read: {error}") from None


def _program(name: str) -> str:
    """A program of our own environment before one of the path's."""
    ours = Path(sys.executable).parent / name
    return str(ours) if "/" not in name and ours.is_file() else name


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"
