"""Servers as child processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OWNER = """
import sys, time
from pathlib import Path
from evaluation.runtime import ReadinessCheck, run_server

class Ready(ReadinessCheck):
    def is_ready(self):
        return (Path(sys.argv[1]) / "pid").is_file()

server = "import os, sys, time; open(sys.argv[1] + '/pid', 'w').write(str(os.getpid())); time.sleep(120)"
with run_server([sys.executable, "-c", server, sys.argv[1]], Path(sys.argv[1]) / "log", Ready(())):
    print("up", flush=True)
    time.sleep(120)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent is killed")
def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        server = int((tmp_path / "pid").read_text())
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _runs(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(server)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie has ended
