"""What the gateway adds to an endpoint of 200 ms: both sides in one run, in turns, so that drift hits both.

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

from benchmarks.agent.slow_endpoint import slow_endpoint, wait_for
from tests.fakes.rules.scripted import ScriptedRules

BARS = {"p50 at 1": 1.03, "p50 at 64": 1.10, "first token": 1.05, "one hidden consultation": 2.10}
"""The case `64 in one instant` has no bar: it measures how long a burst queues for one core."""


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


class Caller:
    """One connection that is kept: a client light enough that what is measured is the other side."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._path = f"{parts.path}/chat/completions"

    async def __aenter__(self) -> Caller:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, content: str, stream: bool) -> float:
        """Seconds for one reply, or to its first token when it is streamed."""
        message = {"role": "user", "content": content}
        body = json.dumps({"model": "m", "messages": [message], "stream": stream}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._writer.write(head.encode() + body)
        heard = await self._read(b"An answer")
        return (heard if stream else time.perf_counter()) - began

    async def _read(self, token: bytes) -> float:
        """Read one reply to its end; the time at which `token` came."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode())
        heard = 0.0
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return time.perf_counter() if token in await self._reader.readexactly(length) else heard
        while size := int(await self._reader.readline(), 16):
            piece = await self._reader.readexactly(size + 2)
            if not heard and token in piece:
                heard = time.perf_counter()
        await self._reader.readline()
        return heard


async def many(
    base_url: str,
    count: int,
    at_once: int,
    content: str = "hello",
    stream: bool = False,
    spread: float = 0.2,
) -> list[float]:
    """The times of `count` requests, `at_once` of them under way."""
    times: list[float] = []
    left = count

    async def worker(number: int) -> None:
        nonlocal left
        async with Caller(base_url) as caller:
            # Callers come one after the other, not in one instant: spread over the time of one answer.
            await asyncio.sleep(spread * number / at_once)
            while left > 0:
                left -= 1
                times.append(await caller.ask(content, stream))

    await asyncio.gather(*(worker(number) for number in range(at_once)))
    return times


async def measure(direct: str, through: str, rounds: int) -> dict[str, Any]:
    """Medians of both sides by case, and their ratios."""
    cases: dict[str, dict[str, Any]] = {
        "p50 at 1": {"count": 10, "at_once": 1},
        "p50 at 64": {"count": 640, "at_once": 64},
        "64 in one instant": {"count": 640, "at_once": 64, "spread": 0.0},
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
            "bar": BARS.get(name),
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
    sys.exit(any(row["bar"] is not None and row["ratio"] > row["bar"] for row in found.values()))


if __name__ == "__main__":
    main()
