"""A light HTTP load generator that adds little overhead to the measurement."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Check = Callable[[bytes], None]


@dataclass
class LoadResult:
    """Result of a load run."""

    seconds: float
    """Time from the first request to the last response."""
    times: list[float] = field(repr=False)
    """Latency of each request in seconds."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.times) / self.seconds

    def percentile(self, percent: int) -> float:
        """Returns a percentile of the request times, seconds."""
        return statistics.quantiles(self.times, n=100, method="inclusive")[percent - 1]


async def run_load(
    url: str,
    bodies: Sequence[bytes],
    at_once: int,
    headers: dict[str, str] | None = None,
    check: Check | None = None,
) -> LoadResult:
    """Sends each body once by POST, `at_once` of them concurrently.

    Raises:
        RuntimeError: a response has a status other than 200.
    """
    address = urlsplit(url)
    fields = {"Host": address.netloc, "Content-Type": "application/json", **(headers or {})}
    head = f"POST {address.path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields.items()
    )
    remaining = iter(bodies)
    times: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            for body in remaining:
                sent = time.perf_counter()
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                response = await _read_response(reader)
                times.append(time.perf_counter() - sent)
                if check is not None:
                    check(response)
        finally:
            writer.close()

    start = time.perf_counter()
    async with asyncio.timeout(600):
        await asyncio.gather(*(client() for _ in range(at_once)))
    return LoadResult(time.perf_counter() - start, times)


async def _read_response(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError((head + body[:300]).decode())
    return body
