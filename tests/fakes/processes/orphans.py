"""Checks that child processes end when their parent is killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def dies_with_parent(parent: subprocess.Popen[bytes], *pid_files: Path) -> bool:
    """Kills the parent once every file holds a process id, and waits until none of those processes runs."""
    try:
        _wait_until(lambda: all(file.is_file() and file.read_text().strip() for file in pid_files))
    finally:
        parent.kill()
        parent.wait()
    _wait_until(lambda: not any(_is_running(file.read_text().strip()) for file in pid_files))
    return True


def _is_running(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
