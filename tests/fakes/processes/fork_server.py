"""Forks a process per command, which starts at once: the modules that it imports are loaded already.

python -m tests.fakes.processes.fork_server FD MODULE...

`preloaded.py` starts this server and sends it a message per command. The fork takes its arguments,
environment, folder and limits from the message, and runs the module as `python -m` does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from typing import Any

STATUS = struct.Struct("<qq")
"""Two numbers, sent twice over the pipe of a command: at its start its process id and 0, at its end its exit
status as of `waitpid` and its peak memory in KiB."""
MESSAGE_BYTES = 1 << 18


def serve(control: socket.socket) -> dict[str, Any]:
    """Forks a process per message until the other end closes. Returns the message, in the fork only."""
    pipes: dict[int, int] = {}
    awake, wake = os.pipe()
    os.set_blocking(awake, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _report_ended(pipes)
        if control not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        if not message:
            for pid in pipes:
                os.kill(pid, signal.SIGKILL)
            raise SystemExit(0)
        *streams, pipe = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            control.close()
            for descriptor in (awake, wake, *descriptors, *pipes.values()):
                os.close(descriptor)
            received: dict[str, Any] = json.loads(message)
            return received
        os.write(pipe, STATUS.pack(pid, 0))
        pipes[pid] = pipe
        for stream in streams:
            os.close(stream)


def _report_ended(pipes: dict[int, int]) -> None:
    """Writes the exit status of each process that has ended to its pipe, and closes the pipe."""
    while pipes:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = pipes.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # the test waits for it no longer
            os.write(pipe, STATUS.pack(status, usage.ru_maxrss))
        os.close(pipe)


def main() -> None:
    """Imports the modules and serves; in a fork, runs the command to its end."""
    descriptor, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    asked = serve(socket.socket(fileno=int(descriptor)))
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if (limit := asked["max_file_bytes"]) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    _end_with(_run(*asked["command"]))


def _run(module: str, *arguments: str) -> int:
    """Runs a module as `python -m` does. Returns the exit code."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end_with(code: int) -> None:
    """Ends the fork as Python does, without native destructors: they wait for threads that it lacks."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
