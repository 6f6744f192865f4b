"""HTTP client that repeats requests that the rule service refused with 429 or 503 and Retry-After."""

from __future__ import annotations

import asyncio
import random
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2

from agent.endpoint.client import retry_after

_MIN_WAIT = 0.05  # seconds, for a Retry-After of 0


@dataclass
class Refusal:
    """The last response that requested a wait: its status, and the seconds to wait if it stated them."""

    status: int
    wait: float | None


@dataclass
class RequestState:
    """Deadline and outcome of one request to the service."""

    deadline: float
    """On the monotonic clock, seconds."""
    contain_errors: bool = False
    """Record an exception in `failure` and answer 502, since raising it would end a shared session."""
    refusal: Refusal | None = None
    """None if the last answer was not a refusal."""
    refused: bool = False
    """Whether any answer was a refusal."""
    status: int | None = None
    """HTTP status of the last answer; None without an answer."""
    failure: Exception | None = None
    """Exception that `contain_errors` withheld from the session."""


REQUEST_STATE: ContextVar[RequestState] = ContextVar("request_state")
"""State of the current task's request. The MCP client's errors lack the status and headers of a refusal."""


class WaitingClient(httpx2.AsyncClient):
    """Repeats a refused request after the wait that the service requests, until the request's deadline."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Sends a request until it is not refused; returns the last refusal if the deadline would pass."""
        state = REQUEST_STATE.get()
        if not state.contain_errors:
            return await self._send(state, request, **options)
        try:
            response = await self._send(state, request, **options)
            if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                await response.aread()
        except Exception as error:
            state.failure = error
            return httpx2.Response(502, request=request)
        return response

    async def _send(self, state: RequestState, request: httpx2.Request, **options: Any) -> httpx2.Response:
        while True:
            response = await super().send(request, **options)
            state.status = response.status_code
            if response.status_code not in (429, 503):
                state.refusal = None
                return response
            state.refused = True
            state.refusal = Refusal(response.status_code, retry_after(response.headers))
            if state.refusal.wait is None:
                return response
            # The factor spreads clients that were refused together.
            wait = max(_MIN_WAIT, state.refusal.wait) * random.uniform(1.0, 1.5)  # noqa: S311
            if time.monotonic() + wait > state.deadline:
                return response
            await response.aclose()
            await asyncio.sleep(wait)
