"""What the gateway adds to an endpoint of 200 ms: both sides in one run, in turns, so that drift hits both.

python -m benchmarks.gateway_overhead --rounds 6
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from benchmarks.slow_endpoint import slow_endpoint, wait_for
from tests.fakes.rules import ScriptedRules

BARS = {"p50 at 1": 1.03, "p50 at 64": 1.10, "first token": 1.05, "one hidden consultation": 2.10}


@contextmanager
def gateway(upstream: str, rules: str) -> Iterator[str]:
    """The command as a user starts it, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "agent.cli", "gateway", "--upstream", upstream, "--rules", rules]
    with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


async def one(client: httpx2.AsyncClient, base_url: str, content: str, stream: bool) -> float:
    """Seconds for one reply, or to its first token when it is streamed."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": stream}
    began = time.perf_counter()
    if not stream:
        (await client.post(f"{base_url}/chat/completions", json=body)).raise_for_status()
        return time.perf_counter() - began
    heard = 0.0
    async with client.stream("POST", f"{base_url}/chat/completions", json=body) as reply:
        async for line in reply.aiter_lines():
            if not heard and "An answer" in line:
                heard = time.perf_counter() - began
    return heard


async def many(
    base_url: str, count: int, at_once: int, content: str = "hello", stream: bool = False
) -> list[float]:
    """The times of `count` requests, `at_once` of them under way."""
    times: list[float] = []
    left = count
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=256)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                times.append(await one(client, base_url, content, stream))

        await asyncio.gather(*(worker() for _ in range(at_once)))
    return times


async def measure(direct: str, through: str, rounds: int) -> dict[str, Any]:
    """Medians of both sides by case, and their ratios."""
    cases: dict[str, dict[str, Any]] = {
        "p50 at 1": {"count": 10, "at_once": 1},
        "p50 at 64": {"count": 256, "at_once": 64},
        "first token": {"count": 10, "at_once": 1, "stream": True},
        "one hidden consultation": {"count": 10, "at_once": 1, "content": "consult"},
    }
    await many(direct, 64, 64)
    await many(through, 64, 64)
    result: dict[str, Any] = {}
    for name, case in cases.items():
        times: dict[str, list[float]] = {direct: [], through: []}
        for number in range(rounds):
            for side in (direct, through) if number % 2 else (through, direct):
                times[side] += await many(side, **case)
        before, after = (statistics.median(times[side]) for side in (direct, through))
        tails = [statistics.quantiles(times[side], n=20)[-1] for side in (direct, through)]
        result[name] = {
            "direct_ms": round(before * 1000, 2),
            "gateway_ms": round(after * 1000, 2),
            "ratio": round(after / before, 4),
            "p95_ratio": round(tails[1] / tails[0], 4),
            "bar": BARS[name],
            "requests": len(times[direct]),
        }
    return result


def main() -> None:
    """Measure, print, and exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rules", help="MCP address of a rule service; left out: a small scripted one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ScriptedRules() as rules, slow_endpoint() as direct:  # noqa: SIM117
        with gateway(direct, options.rules or rules.url) as through:
            found = asyncio.run(measure(direct, through, options.rounds))
    if options.json:
        print(json.dumps(found))
    else:
        for name, row in found.items():
            print(f"{name:24} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    sys.exit(any(row["ratio"] > row["bar"] for row in found.values()))


if __name__ == "__main__":
    main()
