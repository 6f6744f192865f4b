"""A server as a process of ours, for one `with` block."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class StartError(Exception):
    """A server that does not start."""


@dataclass(frozen=True)
class ReadinessCheck:
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


DIE_WITH_PARENT = _end_with_parent if sys.platform == "linux" else None
"""For `preexec_fn` of a process that nobody would wait for, or stop, when we are killed."""


@contextlib.contextmanager
def run_server(
    words: list[str],
    log: Path,
    ready: ReadinessCheck,
    *,
    name: str | None = None,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    """Run a server, in a process group of its own, while the block runs.

    On Linux it ends with us even where we are killed outright, so that no forgotten server keeps the memory
    that the next try needs.

    Args:
        words: the command; a program of our own environment is preferred to one of the path's.
        log: what the server prints is appended here.
        name: what messages call it.
        folder: where it runs, in place of our own.
        environment: in place of ours.

    Raises:
        StartError: the command is unknown, ends early or does not answer in time.
    """
    name = name or f"the server '{words[0]}'"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [_program(words[0]), *words[1:]],
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=DIE_WITH_PARENT,
                env=environment,
                cwd=folder,
            )
        except OSError as error:
            raise StartError(f"{name} cannot be started: {error.strerror}") from None
    try:
        deadline = time.monotonic() + ready.seconds
        while not ready.given():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = process.poll() is not None
                raise StartError(
                    f"{name} {'ended' if ended else 'did not answer in time'} while it started; the end of "
                    f"{log} says why: {_last_line(log)}"
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


def _program(name: str) -> str:
    """A program of our own environment before one of the path's."""
    ours = Path(sys.executable).parent / name
    return str(ours) if "/" not in name and ours.is_file() else name


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"
