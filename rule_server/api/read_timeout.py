"""HTTP protocol of the server with a time limit for receiving a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded_protocol(seconds: float) -> type[HttpToolsProtocol]:
    """Returns a protocol that closes a connection whose request is not complete within `seconds`.

    uvicorn itself waits without limit for a first byte, the end of the headers, or the rest of a body whose
    request was already refused. A few hundred such connections would keep all other callers out.
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
            # Data that starts no request, such as an empty line, has stopped uvicorn's keep-alive timer.
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
