"""What goes back to a caller: a head, then bytes; given up when the caller leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send


@dataclass(frozen=True)
class ReplyHead:
    """Status and headers; comes once, before any bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    def before(self, body: bytes) -> ReplyHead:
        """The same head for this body and nothing after it, which is sent in fewer pieces."""
        return ReplyHead(self.status, {**self.headers, "content-length": str(len(body))})


ReplyParts = AsyncGenerator[ReplyHead | bytes, None]


class StreamingReply:
    """An ASGI response that sends parts as they come; a caller who leaves ends their making."""

    def __init__(self, parts: ReplyParts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop at once when the caller is gone."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not sending.done():
                sending.cancel()
            # Waiting lets the generator close its upstream before the next request comes.
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._parts) as parts:
            async for part in parts:
                if isinstance(part, ReplyHead):
                    headers = [
                        (k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in part.headers.items()
                    ]
                    await send({"type": "http.response.start", "status": part.status, "headers": headers})
                else:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def error_body(message: str, type: str) -> bytes:
    """An error as OpenAI's clients read it."""
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": type}}).encode()


async def error_reply(status: int, message: str, type: str, headers: Mapping[str, str] = {}) -> ReplyParts:
    """An answer that is an error."""
    yield ReplyHead(status, {"content-type": "application/json", **headers})
    yield error_body(message, type)
