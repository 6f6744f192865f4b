"""A Chat Completions endpoint with a fixed response time, in a separate process.

    with slow_endpoint(seconds=0.2, per_second=100) as base_url: ...

It calls the rule tool once if the request offers it and the last message is `consult`. It answers 429 to more
than `per_second` requests in any second.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HEADERS = {"json": b"application/json", "stream": b"text/event-stream"}


class SlowEndpoint:
    """A minimal ASGI app that adds little overhead to the measurement."""

    def __init__(self, seconds: float, per_second: int | None) -> None:
        self._seconds = seconds
        self._per_second = per_second
        self._admitted: deque[float] = deque()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            event = await receive()
            raw += event.get("body", b"")
            more = event.get("more_body", False)
        if not self._admit():
            await _reply(send, 429, "json", [b'{"error": {"message": "too many requests"}}'])
            return
        await asyncio.sleep(self._seconds)
        body = json.loads(raw)
        last = body["messages"][-1]
        consult = bool(body.get("tools")) and last.get("content") == "consult"
        kind = "stream" if body.get("stream") else "json"
        await _reply(
            send, 200, kind, _completion_chunks(consult) if kind == "stream" else [_completion(consult)]
        )

    def _admit(self) -> bool:
        if self._per_second is None:
            return True
        now = time.monotonic()
        while self._admitted and self._admitted[0] <= now - 1:
            self._admitted.popleft()
        if len(self._admitted) >= self._per_second:
            return False
        self._admitted.append(now)
        return True


async def _reply(send: Any, status: int, kind: str, chunks: list[bytes]) -> None:
    headers = [(b"content-type", _HEADERS[kind])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _call() -> dict[str, Any]:
    arguments = '{"situation": "someone asks for a computer virus"}'
    function = {"name": "consult_safety_rules", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


def _completion(consult: bool) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": None if consult else "An answer. " * 20}
    if consult:
        message["tool_calls"] = [_call()]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if consult else "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def _completion_chunks(consult: bool) -> list[bytes]:
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    if consult:
        deltas.append(({"tool_calls": [{"index": 0, **_call()}]}, None))
    else:
        deltas += [({"content": "An answer. "}, None)] * 20
    deltas.append(({}, "tool_calls" if consult else "stop"))
    chunks = [
        {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]


def _serve(port: int, seconds: float, per_second: int | None) -> None:
    import uvicorn

    app = SlowEndpoint(seconds, per_second)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


@contextmanager
def slow_endpoint(seconds: float = 0.2, per_second: int | None = None) -> Iterator[str]:
    """Runs the endpoint for a block. Yields its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(port, seconds, per_second), daemon=True
    )
    process.start()
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.join(10)


def wait_for_port(port: int) -> None:
    """Waits until a server listens on the port. Raises OSError after 30 seconds."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
