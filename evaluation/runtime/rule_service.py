"""The rule service as a process of our own, over a folder that we may edit, for one `with` block."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import RulesError
from agent.tools import RulesClient
from evaluation.runtime.process import ReadinessCheck, StartError, run_server

START_SECONDS = 300.0  # the first start embeds every rule
SWAP_SECONDS = 60.0
# How the service computes is the user's choice; where it listens and what it serves is ours.
_KEPT = ("ASCL_RULES_MODEL", "ASCL_RULES_THREADS", "ASCL_RULES_THRESHOLD", "ASCL_RULES_VARIABLES")


@contextmanager
def run_rule_service(rules: Path, artefact: Path, log: Path, top_k: int | None = None) -> Iterator[str]:
    """`ascl-rules serve` over a folder, following its edits: its address without a path.

    Args:
        rules: the rulebook.
        artefact: where its index is kept between runs.
        log: what the service prints is appended here.
        top_k: rules that a consultation returns unless it asks for a number; None for the service's default.

    Raises:
        RulesError: when it does not start; the message ends with the last line that it printed.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith("ASCL_RULES_")
    }
    url = f"http://127.0.0.1:{port}"
    words = [
        *(sys.executable, "-m", "rule_server.cli", "serve", "--rules", str(rules)),
        *("--artefact", str(artefact), "--port", str(port)),
        *(("--default-top-k", str(top_k)) if top_k is not None else ()),
    ]
    ready = ReadinessCheck((f"{url}/readyz",), START_SECONDS)
    try:
        with run_server(words, log, ready, name=f"the rule service over {rules}", environment=environment):
            yield url
    except StartError as error:
        raise RulesError(str(error), type="no_start") from None


async def wait_for_digest(url: str, old: str | None) -> str:
    """The digest that the service serves, once it is another than `old`.

    Raises:
        RulesError: when it stays the same too long, with what the service says of the folder.
    """
    import httpx2

    deadline = time.monotonic() + SWAP_SECONDS
    async with RulesClient(f"{url}/mcp") as client:
        while True:
            digest = str((await client.rulebook())["digest"])
            if digest != old:
                return digest
            if time.monotonic() > deadline:
                async with httpx2.AsyncClient(timeout=5) as web:
                    said = (await web.get(f"{url}/readyz")).text[:300]
                raise RulesError(
                    f"the rule service did not take up the edited rule within {SWAP_SECONDS:.0f} s: {said}",
                    type="no_swap",
                )
            await asyncio.sleep(0.1)


PACKAGED_RULES = Path(__file__).resolve().parents[2] / "rules"
