"""A model server that keeps the sampling of its first request, like `transformers serve` with batching.

    with SharedSampling() as server:
        ... base_url=server.base_url, model="scripted" ...

At temperature 0 it gives one reply to every request, and otherwise another one to each. As a command:
`python -m tests.fakes.endpoints.shared_sampling MODEL PORT`.
"""

from __future__ import annotations

import signal
import sys
from itertools import count
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.processes.live_server import LiveServer

KNOWN_FIELDS = {"model", "messages", "tools", "temperature", "max_tokens", "top_p", "seed", "stream"}
MODEL_TEMPERATURE = 0.6
"""Temperature of the model's generation config, for requests that name none."""


class SharedSampling:
    """Context manager. `shared` False samples each request by its own fields, as without the option."""

    def __init__(self, *, shared: bool = True, port: int = 0) -> None:
        self.shared = shared
        self.temperatures: list[float] = []
        """The temperature in force for each request, in order."""
        self._number = count()
        routes = [
            Route("/health", self._health),
            Route("/openapi.json", self._openapi),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        self._served = LiveServer(Starlette(routes=routes), port)

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._served.stop()

    @property
    def base_url(self) -> str:
        return f"{self._served.origin}/v1"

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _openapi(self, request: Request) -> Response:
        paths = ("/v1/chat/completions", "/v1/responses", "/load_model", "/reset", "/v1/models", "/health")
        return JSONResponse({"openapi": "3.1.0", "paths": {path: {} for path in paths}})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "owned_by": "local"}]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        if not body.keys() <= KNOWN_FIELDS:
            return JSONResponse({"detail": "unexpected field"}, 422)
        return JSONResponse(self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        own = body.get("temperature", MODEL_TEMPERATURE)
        self.temperatures.append(self.temperatures[0] if self.shared and self.temperatures else own)
        text = "The sea is calm." if self.temperatures[-1] == 0 else f"Sentence {next(self._number)}."
        message = {"role": "assistant", "content": text}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
        }


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with SharedSampling(port=int(sys.argv[2])):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
