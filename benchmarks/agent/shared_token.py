"""Sends 300 requests at the same instant through a gateway with one token. None may lose its consultation.

The gateway and the rule service are real processes; the service reads a tokens file and has its default
limits, but no cache. A second run kills and restarts the service under load: consultations may fail there,
but every answer without rules must be named in its header and counted in the gateway's metrics.

python -m benchmarks.agent.shared_token
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.agent.gateway_overhead import run_gateway
from benchmarks.agent.slow_endpoint import slow_endpoint
from benchmarks.rule_server.service_under_test import ServiceSetup, prepare_service
from benchmarks.tools.cpu_pinning import server_environment

LIMITS = ("ASCL_RULES_RATE_LIMIT", "ASCL_RULES_RATE_BURST")
"""Settings that `prepare_service` raises, and that this benchmark leaves at their defaults."""


class RestartableService:
    """The rule service as a process on a fixed port."""

    def __init__(self, setup: ServiceSetup) -> None:
        self._headers = setup.headers
        self._environment = server_environment(
            **{name: value for name, value in setup.settings.items() if name not in LIMITS}
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the process. `wait` waits until it answers."""
        command = [sys.executable, "-m", "rule_server.cli", "serve", "--port", str(self._port)]
        self._process = subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Waits until the service is ready."""
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx2.get(f"{self.origin}/readyz", timeout=2).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("the rule service did not start")
            time.sleep(0.05)

    def consultations(self) -> int:
        """Returns the consultations that the current process has answered."""
        text = httpx2.get(f"{self.origin}/metrics", headers=self._headers).text
        return _sum_of(text, "ascl_consultations_total")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)


@contextmanager
def running(setup: ServiceSetup) -> Iterator[RestartableService]:
    """Runs the service for a block."""
    service = RestartableService(setup)
    service.start()
    try:
        service.wait()
        yield service
    finally:
        service.kill()


@dataclass
class Answers:
    """Outcome of a run."""

    times: list[float] = field(default_factory=list)
    """Latency of each request in seconds."""
    with_rules: int = 0
    named: int = 0
    """Answers without rules whose header names the cause."""
    silent: int = 0
    """Answers without rules and without that header."""
    failed: int = 0

    def add(self, reply: httpx2.Response, seconds: float) -> None:
        self.times.append(seconds)
        if reply.status_code != 200:
            self.failed += 1
        elif "x-ascl-rules-error" in reply.headers:
            self.named += 1
        elif reply.headers.get("x-ascl-consulted") == "yes" and "x-ascl-rules" in reply.headers:
            self.with_rules += 1
        else:
            self.silent += 1


async def ask_at_once(gateway: str, callers: int) -> Answers:
    """Sends one request of each caller at the same instant."""
    answers = Answers()
    body = {"model": "m", "messages": [{"role": "user", "content": "consult"}]}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=120, limits=limits) as http:

        async def ask() -> None:
            start = time.perf_counter()
            reply = await http.post(f"{gateway}/chat/completions", json=body)
            answers.add(reply, time.perf_counter() - start)

        await asyncio.gather(*(ask() for _ in range(callers)))
    return answers


async def ask_over_restart(gateway: str, callers: int, service: RestartableService) -> Answers:
    """Sends the requests, and kills and restarts the service once it has answered a tenth of them."""
    asking = asyncio.create_task(ask_at_once(gateway, callers))
    before = await asyncio.to_thread(service.consultations)
    while await asyncio.to_thread(service.consultations) < before + callers / 10:
        await asyncio.sleep(0.02)
    await asyncio.to_thread(service.kill)
    service.start()
    return await asking


def counted_without_rules(gateway: str) -> int:
    """Returns the answers without rules according to the gateway's metrics."""
    text = httpx2.get(f"{gateway.removesuffix('/v1')}/metrics").text
    return _sum_of(text, "ascl_gateway_answers_without_rules_total")


def _sum_of(metrics: str, name: str) -> int:
    """Returns the sum of a counter over its labels."""
    return int(sum(map(float, re.findall(rf"^{name}\{{.*\}} (\S+)$", metrics, re.MULTILINE))))


def summarize(answers: Answers, counted: int) -> dict[str, Any]:
    """Returns the row of one run."""
    centiles = statistics.quantiles(answers.times, n=100, method="inclusive")
    return {
        "callers": len(answers.times),
        "with rules": answers.with_rules,
        "without rules, named": answers.named,
        "counted": counted,
        "silent": answers.silent,
        "failed": answers.failed,
        "p50 ms": round(1000 * centiles[49]),
        "p99 ms": round(1000 * centiles[98]),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Returns a row for the run with a steady service and one for the run with a restart."""
    setup = prepare_service(folder, options.artefact)
    rows = {}
    with running(setup) as service, slow_endpoint() as endpoint:
        os.environ["ASCL_RULES_TOKEN"] = setup.token
        with run_gateway(endpoint, f"{service.origin}/mcp") as gateway:
            asyncio.run(ask_at_once(gateway, 1))
            rows["steady"] = summarize(
                asyncio.run(ask_at_once(gateway, options.callers)), counted_without_rules(gateway)
            )
        with run_gateway(endpoint, f"{service.origin}/mcp") as gateway:
            asyncio.run(ask_at_once(gateway, 1))
            answers = asyncio.run(ask_over_restart(gateway, options.callers, service))
            rows["restart"] = summarize(answers, counted_without_rules(gateway))
            rows["restart"]["answered by the second process"] = service.consultations()
    return rows


def main() -> None:
    """Prints the rows. Exits with 1 if a consultation was lost without a restart, or silently with one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=300)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    for name, row in rows.items():
        print(
            json.dumps({"run": name, **row})
            if options.json
            else f"{name:8} " + "  ".join(f"{key} {value}" for key, value in row.items())
        )
    steady, restart = rows["steady"], rows["restart"]
    met = (
        steady["with rules"] == steady["callers"]
        and restart["without rules, named"] == restart["counted"]
        and not restart["silent"]
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
