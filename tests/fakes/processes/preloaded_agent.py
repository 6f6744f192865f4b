"""Runs `ascl-agent` in forked processes that start at once, so that a test can kill a hundred of them.

with PreloadedAgent() as agent:
    process = agent.start(["run", ...], output)
    process.kill()

A fork server imports the agent's modules once and forks each process. The process then runs the real command.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PRELOAD = [
    "agent.cli",
    "agent.rollout.batch.run",
    "agent.cli.tables",
    "agent.tools.rules_client",
    "openai",
    "mcp",
    "httpx2",
]


class PreloadedAgent:
    """Context manager that starts agent processes and kills the remaining ones at its end."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._processes: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join(20)
            process.close()

    def start(self, arguments: Sequence[str], output: Path) -> Any:
        """Starts the command. Appends its standard output and standard error to `output`."""
        process = self._context.Process(target=run_command, args=(list(arguments), str(output)))
        process.start()
        self._processes.append(process)
        return process


def run_command(arguments: list[str], output: str) -> None:
    """Runs `ascl-agent` in this process with both output streams redirected to a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["ASCL_RULES_TOKEN"] = ""
    from agent.cli import app

    sys.argv = ["ascl-agent", *arguments]
    app(arguments, standalone_mode=False)
