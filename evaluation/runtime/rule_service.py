"""Runs the rule service as a child process, over a folder that may be edited while it runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import RulesError
from evaluation.errors import StartError
from evaluation.runtime.process import ReadinessCheck, run_server

PACKAGED_RULES = Path(__file__).resolve().parents[2] / "rules"
START_SECONDS = 300.0  # the first start embeds every rule
RELOAD_SECONDS = 60.0
# The user decides how the service computes; this module decides where it listens and which rules it serves.
_INHERITED = ("ASCL_RULES_MODEL", "ASCL_RULES_THREADS", "ASCL_RULES_THRESHOLD", "ASCL_RULES_VARIABLES")


@contextmanager
def run_rule_service(rules: Path, artefact: Path, log: Path, top_k: int | None = None) -> Iterator[str]:
    """Runs `ascl-rules serve` over a folder and yields its base URL; the service reloads edited rules.

    Args:
        rules: the rulebook.
        artefact: folder of its index, reused by later runs.
        log: file to which the service's output is appended.
        top_k: rules that a consultation returns if its request has no `top_k`; None for the service's
            default.

    Raises:
        RulesError: the service does not start; the message ends with the last line of its output.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or not name.startswith("ASCL_RULES_")
    }
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "rule_server.cli", "serve", "--rules", str(rules)),
        *("--artefact", str(artefact), "--port", str(port)),
        *(("--default-top-k", str(top_k)) if top_k is not None else ()),
    ]
    ready = ReadinessCheck((f"{url}/readyz",), START_SECONDS)
    try:
        with run_server(command, log, ready, name=f"the rule service over {rules}", environment=environment):
            yield url
    except StartError as error:
        raise RulesError(str(error), type="no_start") from None


async def wait_for_digest(url: str, previous: str | None) -> str:
    """Waits until the service serves a different digest from `previous`, and returns the new one.

    Raises:
        RulesError: the digest does not change in time; the message quotes the service's status.
    """
    import asyncio

    import httpx2

    from agent.tools import RulesClient

    deadline = time.monotonic() + RELOAD_SECONDS
    async with RulesClient(f"{url}/mcp") as client:
        while True:
            digest = str((await client.rulebook())["digest"])
            if digest != previous:
                return digest
            if time.monotonic() > deadline:
                async with httpx2.AsyncClient(timeout=5) as web:
                    status = (await web.get(f"{url}/readyz")).text[:300]
                raise RulesError(
                    f"the rule service did not load the edited rule within {RELOAD_SECONDS:.0f} s: {status}",
                    type="no_swap",
                )
            await asyncio.sleep(0.1)
