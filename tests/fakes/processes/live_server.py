"""Serves an ASGI app over real HTTP on a loopback port, from a thread, for the duration of a `with` block."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import uvicorn


class LiveServer:
    """`with LiveServer(app) as server:` listens at `server.origin`. Port 0 selects a free port."""

    def __init__(self, app: Any, port: int = 0, config: uvicorn.Config | None = None) -> None:
        """`config` replaces `app` and `port`: uvicorn serves the app that it names, on a free port."""
        if config is not None:
            config.host, config.port = "127.0.0.1", 0
        config = config or uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_level="error",
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the test server did not start")
            time.sleep(0.005)
        self._port = int(self._server.servers[0].sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops the server. Later calls do nothing."""
        self._server.should_exit = True
        self._thread.join(20)

    @property
    def port(self) -> int:
        return self._port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"
