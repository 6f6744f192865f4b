"""Processes that keep to one core, so that what serves and what asks do not take it from each other."""

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


class Server:
    """A process under test."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = psutil.Process(process.pid)
        self.pid = process.pid
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds of processor time of it and its children, so far."""
        return cpu_seconds(self._process)

    def resident(self) -> int:
        """Bytes in memory."""
        return int(self._process.memory_info().rss)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its living children, user and system, to the nanosecond."""
    family = [process, *process.children(recursive=True)]
    # clock_getcpuclockid(3) of another process; /proc would count in steps of 10 ms.
    return sum(time.clock_gettime((~one.pid << 3) | 2) for one in family)


def keep_to(core: int) -> None:
    """This process and the threads it starts from now on run on one core, where the machine has more."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def environment(**more: str) -> dict[str, str]:
    """One thread for every library of linear algebra, and no settings of ours but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASCL_RULES_")}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **one, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", **more}


@contextmanager
def server(
    module: str, arguments: Sequence[str], path: str, more: dict[str, str] | None = None
) -> Iterator[Server]:
    """`python -m module arguments --port N` on the server's core, once `path` answers 200."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--port", str(port)],
        cwd=ROOT,
        env=environment(**(more or {})),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: keep_to(SERVER_CORE),
    )
    try:
        until = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{module} did not start")
            time.sleep(0.02)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False
