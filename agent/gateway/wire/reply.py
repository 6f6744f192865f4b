"""The reply to a caller: a head, then bytes. It is cancelled when the caller disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from starlette.types import Receive, Scope, Send

from agent.gateway.wire.upstream import RawHeaders


@dataclass(frozen=True)
class ReplyHead:
    """Status and headers; sent once, before any bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """The gateway's own headers."""
    upstream: RawHeaders = ()
    """The upstream's headers, as bytes: they need not be ASCII, and a name may occur more than once."""

    def with_length_of(self, body: bytes) -> ReplyHead:
        """Returns the head of a reply that consists of `body` alone, which avoids chunked encoding."""
        return replace(self, headers={**self.headers, "content-length": str(len(body))})

    def raw(self) -> list[tuple[bytes, bytes]]:
        """Returns all headers; the gateway's own replace the upstream's."""
        own = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in self.headers.items()
        ]
        names = {name for name, _ in own}
        return [*((name, value) for name, value in self.upstream if name not in names), *own]


ReplyParts = AsyncGenerator[ReplyHead | bytes, None]


class StreamingReply:
    """An ASGI response that sends parts as they are generated, until the caller disconnects."""

    def __init__(self, parts: ReplyParts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all parts, or stops as soon as the caller disconnects."""
        sending = asyncio.ensure_future(self._send(send))
        disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnect.cancel()
            if not sending.done():
                sending.cancel()
            # Waiting lets the generator close its upstream request before the caller's next request.
            await asyncio.gather(sending, disconnect, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._parts) as parts:
            async for part in parts:
                if isinstance(part, ReplyHead):
                    start = {"type": "http.response.start", "status": part.status, "headers": part.raw()}
                    await send(start)
                else:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def error_body(message: str, type: str) -> bytes:
    """Returns an error in the form that OpenAI's clients read."""
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": type}}).encode()


async def error_reply(status: int, message: str, type: str, headers: Mapping[str, str] = {}) -> ReplyParts:
    """Yields a reply that consists of an error."""
    yield ReplyHead(status, {"content-type": "application/json", **headers})
    yield error_body(message, type)
