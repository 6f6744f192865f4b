"""Many callers of one HTTP address: light, so that the other side is measured."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Check = Callable[[bytes], None]


@dataclass
class Load:
    """What one load found."""

    seconds: float
    """From the first question to the last answer."""
    times: list[float] = field(repr=False)
    """Seconds of each request."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds

    def percentile(self, percent: int) -> float:
        """Seconds."""
        return statistics.quantiles(self.times, n=100, method="inclusive")[percent - 1]


async def load(
    url: str,
    bodies: Sequence[bytes],
    at_once: int,
    headers: dict[str, str] | None = None,
    check: Check | None = None,
) -> Load:
    """POST each body once, `at_once` of them under way. Raises RuntimeError at an answer that is not 200."""
    parts = urlsplit(url)
    lines = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
    head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    left = iter(bodies)
    times: list[float] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            for body in left:
                began = time.perf_counter()
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = await _answer(reader)
                times.append(time.perf_counter() - began)
                if check is not None:
                    check(answer)
        finally:
            writer.close()

    began = time.perf_counter()
    async with asyncio.timeout(600):
        await asyncio.gather(*(caller() for _ in range(at_once)))
    return Load(time.perf_counter() - began, times)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError((head + body[:300]).decode())
    return body
