"""Compares a consultation over MCP with one over REST, on a cached question; measures a process's first one.

Both sides alternate in one run, so that drift of the machine affects both. Every consultation
must take one HTTP request.

python -m benchmarks.agent.consultation
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from agent.tools import RulesClient
from benchmarks.rule_server.service_under_test import prepare_service
from benchmarks.tools.cpu_pinning import run_server

MAX_RATIO = 3.0
"""Allowed ratio, MCP to REST, of the fastest tenth of the consultations: other work on the cores affects it
least."""
MAX_FIRST_MS = 100.0
"""Maximum milliseconds by which the first consultation of a process may be slower than the next ones."""
QUESTION = {"situation": "a user asks how to kill a stuck Linux process"}
FIRST = """
import asyncio, json, sys, time
from agent.tools import RulesClient

async def main():
    async with RulesClient(sys.argv[1], sys.argv[2]) as client:
        times = []
        for _ in range(6):
            start = time.perf_counter()
            await client.consult(json.loads(sys.argv[3]))
            times.append(time.perf_counter() - start)
        print(json.dumps(times))

asyncio.run(main())
"""
"""Program that prints the durations of a process's first consultations in seconds."""


async def compare(url: str, token: str, calls: int) -> dict[str, Any]:
    """Returns percentiles of both sides, their ratios and the HTTP requests of each consultation."""
    headers = {"Authorization": f"Bearer {token}"}
    rest: list[float] = []
    mcp: list[float] = []
    async with httpx2.AsyncClient(headers=headers) as http, RulesClient(f"{url}/mcp", token) as client:

        async def by_rest() -> None:
            (await http.post(f"{url}/v1/consult", json=QUESTION)).raise_for_status().json()

        async def by_mcp() -> None:
            if (await client.consult(QUESTION)).is_error:
                raise RuntimeError("the service rejects the question")

        async def count_requests() -> float:
            metrics = (await http.get(f"{url}/metrics")).text.splitlines()
            lines = [line for line in metrics if line.startswith("ascl_requests_total{")]
            return sum(float(line.rpartition(" ")[2]) for line in lines if '"/mcp"' in line)

        await by_rest()
        await by_mcp()
        before = await count_requests()
        for number in range(calls):
            sides = ((by_rest, rest), (by_mcp, mcp))
            for send, times in sides if number % 2 else reversed(sides):
                start = time.perf_counter()
                await send()
                times.append(time.perf_counter() - start)
        requests = await count_requests() - before
    result: dict[str, Any] = {"requests per consultation": requests / len(mcp)}
    for name, percent in (("fastest tenth", 10), ("median", 50)):
        values = [1000 * statistics.quantiles(times, n=100)[percent - 1] for times in (rest, mcp)]
        result[f"{name}: rest ms"], result[f"{name}: mcp ms"] = (round(value, 2) for value in values)
        result[f"{name}: ratio"] = round(values[1] / values[0], 2)
    return result


def measure_first(url: str, token: str, starts: int) -> dict[str, Any]:
    """Returns the medians of the first consultation and of the next ones in fresh processes."""
    command = [sys.executable, "-c", FIRST, f"{url}/mcp", token, json.dumps(QUESTION)]
    first, following = [], []
    for _ in range(starts):
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        times = json.loads(output)
        first.append(1000 * times[0])
        following.append(1000 * statistics.median(times[1:]))
    return {
        "first ms": round(statistics.median(first), 1),
        "next ms": round(statistics.median(following), 1),
        "later ms": round(statistics.median(a - b for a, b in zip(first, following, strict=True)), 1),
    }


def main() -> None:
    """Prints the result. Exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="consultations per side")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = prepare_service(Path(folder), options.artefact)
        settings = {**service.settings, "ASCL_RULES_CACHE_SIZE": "2048"}
        with run_server("rule_server.cli", ["serve"], "/readyz", settings) as server:
            result = asyncio.run(compare(server.url, service.token, options.calls))
            result |= measure_first(server.url, service.token, options.starts)
    print(json.dumps(result) if options.json else "  ".join(f"{key} {result[key]}" for key in result))
    met = result["fastest tenth: ratio"] <= MAX_RATIO and result["later ms"] <= MAX_FIRST_MS
    sys.exit(not (met and result["requests per consultation"] == 1))


if __name__ == "__main__":
    main()
