"""Runs a server as a child process for the length of a `with` block."""

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

from evaluation.errors import StartError


@dataclass(frozen=True)
class ReadinessCheck:
    """Polls the URLs until one returns status 200, for at most `seconds`."""

    urls: tuple[str, ...]
    seconds: float = 900

    def is_ready(self) -> bool:
        """Returns whether one of the URLs returns status 200 now."""
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


def _die_with_parent() -> None:
    """Asks the kernel, in the new process, to send it SIGTERM when its parent ends for any reason."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


DIE_WITH_PARENT = _die_with_parent if sys.platform == "linux" else None
"""`preexec_fn` of a child process that must not outlive its parent; None where the system lacks it."""


@contextlib.contextmanager
def run_server(
    command: list[str],
    log: Path,
    ready: ReadinessCheck,
    *,
    name: str | None = None,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    """Runs a server in its own process group while the block runs.

    On Linux the server ends with this process even if this process is killed, so that a forgotten server does
    not hold the memory that the next attempt needs.

    Args:
        command: program and arguments; a program beside the Python interpreter is preferred to one in PATH.
        log: file to which the server's output is appended.
        ready: decides when the block may begin.
        name: the server's name in messages.
        folder: the server's working directory; None for that of this process.
        environment: the server's environment; None for that of this process.

    Raises:
        StartError: the command is unknown, ends early or is not ready in time.
    """
    name = name or f"the server '{command[0]}'"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [_resolve_program(command[0]), *command[1:]],
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
        _wait_until_ready(process, ready, name, log)
        yield
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: ReadinessCheck, name: str, log: Path) -> None:
    deadline = time.monotonic() + ready.seconds
    while not ready.is_ready():
        has_ended = process.poll() is not None
        if has_ended or time.monotonic() > deadline:
            raise StartError(
                f"{name} {'ended' if has_ended else 'did not answer in time'} while it started; the last "
                f"line of {log} is: {_last_line(log)}"
            )
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process group: SIGTERM first, SIGKILL after 15 s."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _resolve_program(name: str) -> str:
    """Returns the program beside the Python interpreter if there is one, else the name itself."""
    installed = Path(sys.executable).parent / name
    return str(installed) if "/" not in name and installed.is_file() else name


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "(no output)"
