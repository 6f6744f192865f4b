"""The HTTP protocol of the server, with an end to requests that never finish arriving."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded_protocol(seconds: float) -> type[HttpToolsProtocol]:
    """A protocol that closes a connection whose request has not arrived whole within `seconds`.

    The server itself waits for ever for a first byte, the end of the headers, or the rest of a body whose
    request was already refused: some hundred such connections would keep everybody else out.
    """

    class BoundedProtocol(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._restart()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # What begins no request, such as an empty line, has stopped the server's own keep-alive timer.
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._deadline is None and not self.transport.is_closing():
                self._restart()

        def on_message_begin(self) -> None:
            self._restart()
            super().on_message_begin()

        def on_message_complete(self) -> None:
            self._cancel()
            super().on_message_complete()

        def _restart(self) -> None:
            self._cancel()
            self._deadline = self.loop.call_later(seconds, self.transport.close)

        def _cancel(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return BoundedProtocol
