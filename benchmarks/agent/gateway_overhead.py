"""Measures the latency that the gateway adds to a 200 ms endpoint.

Both sides are measured alternately in one run, so that drift of the machine affects both.

python -m benchmarks.agent.gateway_overhead --rounds 6
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
from urllib.parse import urlsplit

from benchmarks.agent.slow_endpoint import slow_endpoint, wait_for_port
from tests.fakes.rules.scripted import ScriptedRules

MAX_RATIOS = {"p50 at 1": 1.03, "p50 at 64": 1.05, "first token": 1.05, "one hidden consultation": 2.05}
"""Allowed ratio by case. `64 in one instant` has none: it measures how long a burst queues for one core."""


@contextmanager
def run_gateway(upstream: str, rules: str) -> Iterator[str]:
    """Runs the gateway command in a separate process. Yields its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "agent.cli", "gateway", "--upstream", upstream, "--rules-url", rules]
    with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


class Client:
    """A client with one persistent connection, light enough not to affect the measurement."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._path = f"{parts.path}/chat/completions"

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, content: str, stream: bool) -> float:
        """Sends a request. Returns the seconds to the end of the reply, or to its first token if it is
        streamed."""
        message = {"role": "user", "content": content}
        body = json.dumps({"model": "m", "messages": [message], "stream": stream}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        start = time.perf_counter()
        self._writer.write(head.encode() + body)
        first_token = await self._read(b"An answer")
        return (first_token if stream else time.perf_counter()) - start

    async def _read(self, token: bytes) -> float:
        """Reads a reply to its end. Returns the time at which `token` arrived."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode())
        arrival = 0.0
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return time.perf_counter() if token in await self._reader.readexactly(length) else arrival
        while size := int(await self._reader.readline(), 16):
            chunk = await self._reader.readexactly(size + 2)
            if not arrival and token in chunk:
                arrival = time.perf_counter()
        await self._reader.readline()
        return arrival


async def send_requests(
    base_url: str,
    count: int,
    at_once: int,
    content: str = "hello",
    stream: bool = False,
    spread: float = 0.2,
) -> list[float]:
    """Sends `count` requests, `at_once` of them concurrently. Returns the latency of each in seconds."""
    times: list[float] = []
    remaining = count

    async def worker(number: int) -> None:
        nonlocal remaining
        async with Client(base_url) as client:
            # Staggers the clients over the duration of one answer.
            await asyncio.sleep(spread * number / at_once)
            while remaining > 0:
                remaining -= 1
                times.append(await client.ask(content, stream))

    await asyncio.gather(*(worker(number) for number in range(at_once)))
    return times


async def measure(direct: str, through: str, rounds: int) -> dict[str, Any]:
    """Returns the medians of both sides and their ratios, by case."""
    cases: dict[str, dict[str, Any]] = {
        "p50 at 1": {"count": 10, "at_once": 1},
        "p50 at 64": {"count": 640, "at_once": 64},
        "64 in one instant": {"count": 640, "at_once": 64, "spread": 0.0},
        "first token": {"count": 10, "at_once": 1, "stream": True},
        "one hidden consultation": {"count": 10, "at_once": 1, "content": "consult"},
    }
    await send_requests(direct, 64, 64)
    await send_requests(through, 64, 64)
    result: dict[str, Any] = {}
    for name, case in cases.items():
        times: dict[str, list[float]] = {direct: [], through: []}
        for number in range(rounds):
            for side in (direct, through) if number % 2 else (through, direct):
                times[side] += await send_requests(side, **case)
        direct_median, gateway_median = (statistics.median(times[side]) for side in (direct, through))
        tails = [statistics.quantiles(times[side], n=20)[-1] for side in (direct, through)]
        result[name] = {
            "direct_ms": round(direct_median * 1000, 2),
            "gateway_ms": round(gateway_median * 1000, 2),
            "ratio": round(gateway_median / direct_median, 4),
            "p95_ratio": round(tails[1] / tails[0], 4),
            "bar": MAX_RATIOS.get(name),
            "requests": len(times[direct]),
        }
    return result


def main() -> None:
    """Prints the result. Exits with 1 if a ratio exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rules", help="MCP address of a rule service; default: a scripted one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ScriptedRules() as rules, slow_endpoint() as direct:  # noqa: SIM117
        with run_gateway(direct, options.rules or rules.url) as through:
            result = asyncio.run(measure(direct, through, options.rounds))
    if options.json:
        print(json.dumps(result))
    else:
        for name, row in result.items():
            print(f"{name:24} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    sys.exit(any(row["bar"] is not None and row["ratio"] > row["bar"] for row in result.values()))


if __name__ == "__main__":
    main()
