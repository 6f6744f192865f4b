"""Runs servers and clients on separate cores, so that they do not compete for one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

SERVER_CORE, CALLER_CORE = 0, 1
ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """A server process under test."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = psutil.Process(process.pid)
        self.pid = process.pid
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Returns the seconds of processor time used so far, including children."""
        return cpu_seconds(self._process)

    def resident(self) -> int:
        """Returns the resident memory, bytes."""
        return int(self._process.memory_info().rss)


def cpu_seconds(process: psutil.Process) -> float:
    """Returns user and system time of a process and its living children, with nanosecond resolution."""
    family = [process, *process.children(recursive=True)]
    # clock_getcpuclockid(3) of another process; /proc has a resolution of 10 ms.
    return sum(time.clock_gettime((~one.pid << 3) | 2) for one in family)


def pin_to_core(core: int) -> None:
    """Pins this process and threads that it starts later to one core, if that core is available."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def server_environment(**more: str) -> dict[str, str]:
    """Returns an environment with single-threaded numerical libraries and no ASCL_RULES_* except `more`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASCL_RULES_")}
    single_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **inherited,
        **single_thread,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


@contextmanager
def run_server(
    module: str,
    arguments: Sequence[str],
    path: str,
    more: dict[str, str] | None = None,
    checkout: Path = ROOT,
) -> Iterator[ServerProcess]:
    """Runs `python -m module arguments --port N` on the server core. Yields it once `path` returns 200.

    A different checkout runs its own code, with the `main` of that module.
    """
    command, own = ["-m", module], {}
    if checkout != ROOT:
        command, own = ["-c", f"import {module}; {module}.main()"], {"PYTHONPATH": str(checkout.resolve())}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *command, *arguments, "--port", str(port)],
        cwd=checkout,
        env=server_environment(**(more or {}), **own),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: pin_to_core(SERVER_CORE),
    )
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{module} did not start")
            time.sleep(0.02)
        yield ServerProcess(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False
