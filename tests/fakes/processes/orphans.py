"""What becomes of a process when the one that started it is killed outright."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def dies_with_parent(owner: subprocess.Popen[bytes], *pids: Path) -> bool:
    """Kill the owner as soon as these files name processes, and wait until none of those runs."""
    try:
        _wait(lambda: all(pid.is_file() and pid.read_text().strip() for pid in pids))
    finally:
        owner.kill()
        owner.wait()
    _wait(lambda: not any(_runs(pid.read_text().strip()) for pid in pids))
    return True


def _runs(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
