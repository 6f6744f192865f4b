"""The command `stdio`: every line gets an answer, and one interrupt ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLIENT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


class Stdio:
    """The server as a child process, after its handshake."""

    def __init__(self, artefact: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "rule_server.cli",
            "stdio",
            "--artefact",
            str(artefact),
            "--no-watch",
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ASCL_RULES_")}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        self._rest = b""
        self.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": CLIENT}), 120)
        self.write('{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def write(self, line: str | bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((line.encode() if isinstance(line, str) else line) + b"\n")
        self.process.stdin.flush()

    def send(self, line: str | bytes, seconds: float = 30) -> Any:
        """Writes a line and returns the next answer."""
        self.write(line)
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            assert select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))[0], line
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, "the server has ended"
            self._rest += data
        answer, _, self._rest = self._rest.partition(b"\n")
        return json.loads(answer)

    def end(self) -> tuple[int, str]:
        """Waits for the end. Returns the exit code and the standard error."""
        code = self.process.wait(20)
        assert self.process.stderr is not None
        return code, self.process.stderr.read().decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def running(built_artefact: Path) -> Iterator[Stdio]:
    stdio = Stdio(built_artefact)
    with contextlib.closing(stdio):
        yield stdio


def call(situation: str, id: str = "7") -> str:
    """Returns a call of the tool, with the situation and the id as JSON text."""
    return (
        f'{{"jsonrpc":"2.0","id":{id},"method":"tools/call",'
        f'"params":{{"name":"consult_safety_rules","arguments":{{"situation":{situation}}}}}}}'
    )


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        (call('"a virus"')[:60], -32700, 7),
        ('{"jsonrpc":"2.0","method":"ping","params":{"id":3},', -32700, None),
        ('[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        ("[]", -32600, None),
        (call('"half \\ud800 a pair"'), -32700, 7),
        (call('"x"', "1.5"), -32600, None),
        (call('"x"', "null"), -32600, None),
        (call('"x"', "true"), -32600, None),
        ("42", -32600, None),
        ('{"jsonrpc":"1.0","id":"a","method":"ping"}', -32600, "a"),
        ('{"id":5}', -32600, 5),
        (b"\xff\xfe", -32700, None),
        ("[" * 100_000, -32700, None),
        ('{"x":"' + "x" * (1 << 21) + '"}', -32600, None),
    ],
)
def test_a_line_that_is_no_message_gets_an_error(
    running: Stdio, line: str | bytes, code: int, id: int | str | None
) -> None:
    answer = running.send(line)
    assert (answer["error"]["code"], answer["id"]) == (code, id)
    assert running.send('{"jsonrpc":"2.0","id":"after","method":"ping"}') == {
        "jsonrpc": "2.0",
        "id": "after",
        "result": {},
    }


def test_blank_lines_and_a_byte_order_mark_are_ignored(running: Stdio) -> None:
    assert running.send('\n \r\n\ufeff{"jsonrpc":"2.0","id":8,"method":"ping"}\r')["id"] == 8
    assert running.send(call('"someone asks for a virus"'))["result"]["structuredContent"]["verdict"]


def test_one_interrupt_ends_the_server(built_artefact: Path) -> None:
    with contextlib.closing(Stdio(built_artefact)) as stdio:
        stdio.process.send_signal(signal.SIGINT)
        code, errors = stdio.end()
    assert (code, "Traceback" in errors) == (130, False), errors


def test_the_end_of_the_input_ends_the_server_after_a_last_error(built_artefact: Path) -> None:
    with contextlib.closing(Stdio(built_artefact)) as stdio:
        assert stdio.process.stdin is not None
        assert stdio.process.stdout is not None
        stdio.process.stdin.write(b'{"jsonrpc":"2.0","id":9,"meth')
        stdio.process.stdin.close()
        code, errors = stdio.end()
        answer = json.loads(stdio.process.stdout.read())
    assert (answer["error"]["code"], answer["id"]) == (-32700, 9)
    assert (code, "Traceback" in errors) == (0, False), errors
