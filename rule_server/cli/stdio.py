"""Serves MCP over standard input and output, and answers every line that is not a message with an error.

The SDK's reader drops such lines, so the client waits forever. It also blocks in a thread that only a third
interrupt ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pydantic_core
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from rule_server.api.mcp_server import BATCH_ERROR

if TYPE_CHECKING:
    from mcp.server import MCPServer

MAX_LINES_AHEAD = 64
"""Number of lines that are read before they are handled."""
_ID = re.compile(r'\s*\{[^{}\[\]]*?"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")\s*,')
"""The id of a torn message, if it precedes every nested value."""


async def serve_stdio(server: MCPServer[Any], max_line_bytes: int) -> bool:
    """Serves until the end of the input or an interrupt. Returns whether it was interrupted.

    A longer line than `max_line_bytes` is refused. A second interrupt raises KeyboardInterrupt.
    """
    lowlevel = server._lowlevel_server
    messages = Messages(max_line_bytes)
    loop, interrupted = asyncio.get_running_loop(), False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        loop.remove_signal_handler(signal.SIGINT)
        # To cancel the task would break the SDK's streams while a message is on its way.
        messages.end()

    with contextlib.suppress(NotImplementedError):  # on Windows an interrupt cancels the task
        loop.add_signal_handler(signal.SIGINT, interrupt)
    # Only the reading differs from `run_stdio_async`.
    async with stdio_server(stdin=messages) as (read_stream, write_stream):  # type: ignore[arg-type]
        messages.replies.set_result(write_stream)
        await lowlevel.run(read_stream, write_stream, lowlevel.create_initialization_options())
    return interrupted


class Messages:
    """Iterates over the lines of standard input that are messages, and replies to all others."""

    def __init__(self, max_line_bytes: int) -> None:
        """Must be called in the event loop."""
        self.replies: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """Stream for the replies, once it is open."""
        self._lines = _Lines(max_line_bytes)
        self.end = self._lines.end

    async def __aiter__(self) -> AsyncIterator[str]:
        async for raw in self._lines:
            line = raw.decode("utf-8", "replace").strip().lstrip("\ufeff") if raw is not None else None
            if line == "":
                continue
            too_long = "the line is too long: raise ASCL_RULES_MAX_BODY"
            error = message_error(line) if line is not None else _error(None, INVALID_REQUEST, too_long)
            if error is not None:
                await (await self.replies).send(SessionMessage(error))
            elif line is not None:
                yield line


class _Lines:
    """Iterates over the lines of standard input. A line that is too long is None.

    A separate thread reads the descriptor, so that waiting for input does not delay the exit.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | EOFError | None] = asyncio.Queue(MAX_LINES_AHEAD)
        # The descriptor 0 itself leads nowhere, so that nothing else in the process reads messages.
        self._input = os.dup(0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        threading.Thread(target=self._read, daemon=True, name="stdin").start()

    async def __aiter__(self) -> AsyncIterator[bytes | None]:
        while not isinstance(line := await self._queue.get(), EOFError):
            yield line

    def end(self) -> None:
        """Ends the input; lines that were not handled yet are dropped."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(EOFError())

    def _put(self, line: bytes | EOFError | None) -> None:
        asyncio.run_coroutine_threadsafe(self._queue.put(line), self._loop).result()

    def _read(self) -> None:
        rest, too_long = b"", False
        try:
            while data := os.read(self._input, 1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._put(None if too_long or len(line) > self._max_bytes else line)
                    too_long = False
                if len(rest) > self._max_bytes:
                    rest, too_long = b"", True
            if rest or too_long:
                self._put(None if too_long else rest)
            self._put(EOFError())
        except OSError:
            self._put(EOFError())
        except (RuntimeError, concurrent.futures.CancelledError):  # the event loop has ended
            return


def message_error(line: str) -> JSONRPCError | None:
    """Returns the error to reply to a line that is not a message, with its id if readable, else None."""
    try:
        value = pydantic_core.from_json(line)
    except ValueError as error:
        return _error(_readable_id(line), PARSE_ERROR, f"it is not JSON ({error}): send one message per line")
    if isinstance(value, list):
        return _error(None, INVALID_REQUEST, BATCH_ERROR)
    if not isinstance(value, dict):
        return _error(None, INVALID_REQUEST, "a message is a JSON object")
    if "method" in value and "id" in value and not _is_id(value["id"]):
        return _error(None, INVALID_REQUEST, "the id of a request is a string or a whole number")
    try:
        jsonrpc_message_adapter.validate_python(value, by_name=False)
    except ValidationError:
        id = value.get("id")
        message = "it is not a JSON-RPC 2.0 message: send `jsonrpc`, `id`, `method` and `params`"
        return _error(id if _is_id(id) else None, INVALID_REQUEST, message)
    return None


def _readable_id(line: str) -> int | str | None:
    try:
        value = json.loads(line)  # accepts half a surrogate pair
        id = value.get("id") if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        match = _ID.match(line[:4096])
        try:
            id = json.loads(match[1]) if match is not None else None
        except ValueError:
            id = None
    return id if _is_id(id) and _is_unicode(id) else None


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_unicode(value: object) -> bool:
    return not isinstance(value, str) or value.isascii() or value == value.encode("utf-8", "replace").decode()


def _error(id: int | str | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=id, error=ErrorData(code=code, message=message))
