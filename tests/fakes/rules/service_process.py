"""Runs the real rule service in a separate process.

with run_rule_service(rules, artefact, log) as (url, process):
    ... f"{url}/mcp" ...
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.fakes.processes import preloaded
from tests.fakes.processes.ports import free_port
from tests.fakes.processes.preloaded import PreloadedProcess


@contextmanager
def run_rule_service(
    rules: Path, artefact: Path, log: Path, **settings: str
) -> Iterator[tuple[str, PreloadedProcess]]:
    """Starts `ascl-rules serve` on a free port and yields its URL and process once it is ready.

    `settings` become the environment variables ASCL_RULES_*.
    """
    port = free_port()
    with log.open("ab") as output:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ASCL_RULES_")
        }
        process = preloaded.start(
            *("rule_server.cli", "serve", "--rules", rules, "--artefact", artefact, "--port", port),
            stdout=output,
            stderr=output,
            environment=environment
            | {f"ASCL_RULES_{name.upper()}": value for name, value in settings.items()},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not is_ready(url):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def is_ready(url: str) -> bool:
    try:
        return bool(httpx2.get(f"{url}/readyz", timeout=2).status_code == 200)
    except httpx2.TransportError:
        return False
