"""`ascl-agent` in processes that start at once, so that it can be killed a hundred times in a few minutes.

with Lives() as lives:
    process = lives.begin(["run", ...], output)
    process.kill()

The processes are forked from a server that has loaded the agent's imports already; what runs in them is the
command itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

IMPORTS = [
    "agent.cli",
    "agent.rollout.batch",
    "agent.cli.tables",
    "agent.tools.rules_client",
    "openai",
    "mcp",
    "httpx2",
]


class PreloadedAgent:
    """Use as a context manager; ends what is still alive."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(IMPORTS)
        self._begun: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._begun:
            process.kill()
            process.join(20)
            process.close()

    def begin(self, arguments: Sequence[str], output: Path) -> Any:
        """Start the command; what it prints is appended to `output`."""
        process = self._context.Process(target=live, args=(list(arguments), str(output)))
        process.start()
        self._begun.append(process)
        return process


def live(arguments: list[str], output: str) -> None:
    """What a process does: the command, its output in a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["ASCL_RULES_TOKEN"] = ""
    from agent.cli import app

    sys.argv = ["ascl-agent", *arguments]
    app(arguments, standalone_mode=False)
