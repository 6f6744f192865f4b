"""Runs `python -m MODULE ...` in processes that have imported their modules already; see `fork_server.py`.

done = run("rule_server.cli", "lint", "--json", timeout=60)
process = start("rule_server.cli", "serve", stdout=log, stderr=log)

A fork server starts with the first command that needs it, serves all tests of a worker, and ends with it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tests.fakes.processes.fork_server import STATUS

ROOT = Path(__file__).resolve().parents[3]
_AGENT = ("agent.cli.app", "agent.rollout.batch.run", "agent.tools.rules_client", "openai", "mcp", "httpx2")
_RULES = (
    *("rule_server.cli.app", "rule_server.authoring.replay", "rule_server.authoring.lint.search"),
    *("rule_server.service.rule_service", "rule_server.retrieval.build", "rule_server.api.app"),
    *("onnxruntime", "tokenizers", "faiss", "mcp", "uvicorn", "tests.fakes.rules.cached_encoder"),
)
MODULES = {
    "rule_server": _RULES,
    "export": (*_RULES, "torch", "sentence_transformers", "onnx"),  # `build` with another embedding model
    "agent": _AGENT,
    "evaluation": (*_AGENT, "evaluation.cli.app", "evaluation.scorers", "evaluation.reports.render"),
    "trainer": ("trainer.cli.app", "trainer.groups.prepare", "trainer.stages.logged.trainer", "trl", "peft"),
}
"""By fork server: what it imports. `start` takes the one of the package unless told otherwise."""


class PreloadedProcess:
    """A running command, with those parts of `subprocess.Popen` that tests use."""

    def __init__(self, pipe: int) -> None:
        self._pipe = os.fdopen(pipe, "rb", buffering=0)
        self.returncode: int | None = None
        self.peak_kib = 0
        """Peak memory, once the command has ended. It includes what the fork shares with the server."""
        self.pid, _ = self._read()

    def _read(self) -> tuple[int, int]:
        message = self._pipe.read(STATUS.size) or b""
        assert len(message) == STATUS.size, "the fork server has ended; its error is above"
        first, second = STATUS.unpack(message)
        return first, second

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while the process runs."""
        if self.returncode is None and select.select([self._pipe], [], [], 0)[0]:
            status, self.peak_kib = self._read()
            self._pipe.close()
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code. Raises TimeoutExpired after `timeout` seconds."""
        if self.returncode is None and not select.select([self._pipe], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server(package: str) -> socket.socket:
    """Starts the fork server of a package's commands. Returns the socket that takes its messages."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.fakes.processes.fork_server", str(theirs.fileno())]
        server = subprocess.Popen(
            [*command, *MODULES[package]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def start(
    module: str,
    *arguments: object,
    stdout: IO[Any],
    stderr: IO[Any],
    stdin: IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
    max_file_bytes: int | None = None,
    package: str | None = None,
) -> PreloadedProcess:
    """Starts a command.

    Args:
        module: what `python -m` would run.
        environment: all its variables; None for those of this process.
        max_file_bytes: makes longer writes to files fail, as on a full disk.
        package: the fork server, a key of MODULES; None for the package of the module.
    """
    message = {
        "command": [module, *map(str, arguments)],
        "environment": dict(os.environ if environment is None else environment),
        "folder": str(ROOT),
        "max_file_bytes": max_file_bytes,
    }
    control = _server(package or module.partition(".")[0])
    read, write = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, write)
        source = stdin or stack.enter_context(Path(os.devnull).open("rb"))
        descriptors = [*(stream.fileno() for stream in (source, stdout, stderr)), write]
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)
    return PreloadedProcess(read)


def run(
    module: str, *arguments: object, timeout: float, input: str = "", check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and captures its output as text. `options` are those of `start`."""
    pipes = [os.pipe() for _ in ("stdout", "stderr")]
    with ExitStack() as stack:
        readers = [stack.enter_context(os.fdopen(read, "rb")) for read, _ in pipes]
        with ExitStack() as inherited:
            stdin = inherited.enter_context(tempfile.TemporaryFile())
            stdin.write(input.encode())
            stdin.seek(0)
            writers = [inherited.enter_context(os.fdopen(write, "wb")) for _, write in pipes]
            process = start(module, *arguments, stdin=stdin, stdout=writers[0], stderr=writers[1], **options)
        pool = stack.enter_context(ThreadPoolExecutor(len(readers)))
        texts = [pool.submit(reader.read) for reader in readers]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output = [text.result().decode("utf-8") for text in texts]
    done = subprocess.CompletedProcess([module, *map(str, arguments)], code, *output)
    if check:
        done.check_returncode()
    return done
