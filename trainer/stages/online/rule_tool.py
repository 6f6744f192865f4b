"""Concurrent consultations for a trainer that calls tools one at a time.

TRL runs the calls of a batch sequentially, so a batch would wait for the sum of its consultations. Here all
of them start as soon as the batch is generated (`start`) and run concurrently in a separate thread; the tool
that TRL calls (`consult`) waits for one result.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.errors import RulesError
from agent.tools import RULE_TOOL, RulesClient

UNAVAILABLE = "The safety rules cannot be consulted right now."
"""Tool result that the model reads when the service fails; an episode that contains it has no reward."""

T = TypeVar("T")


class BatchedRuleTool:
    """Rule tool that consults a rule service concurrently; a context manager.

    Args:
        url: MCP address of the rule service.
        token: sent as a bearer token.
        max_in_flight: maximum number of concurrent consultations.

    Raises:
        RulesError: the service cannot be reached on entering.
    """

    def __init__(self, url: str, token: str | None = None, *, max_in_flight: int = 64) -> None:
        self.peak_in_flight = 0
        """Largest number of concurrent consultations so far."""
        self.failures = 0
        """Number of consultations that the service did not answer."""
        self.tool: dict[str, Any] = {}
        """Tool as the service offers it, in the form that chat templates take."""
        self.digest = ""
        self.guidance: str | None = None
        """Digest of the rulebook."""
        self._url, self._token, self._max_in_flight = url, token, max_in_flight
        self._in_flight = 0
        self._pending: dict[str, Future[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rule-tool", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._semaphore = asyncio.Semaphore(self._max_in_flight)
        self._client = RulesClient(self._url, self._token)
        try:
            self._wait(self._client.__aenter__())
            self.digest = str(self._wait(self._client.rulebook())["digest"])
            self.tool = self._wait(self._client.tool())
            self.guidance = self._wait(self._client.guidance())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._wait(self._client.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def start(self, arguments: dict[str, Any]) -> None:
        """Starts a consultation without waiting.

        Identical consultations from different episodes are sent only once.
        """
        key = _key(arguments)
        if key not in self._pending:
            self._pending[key] = asyncio.run_coroutine_threadsafe(self._consult(arguments), self._loop)

    def consult(self, arguments: dict[str, Any]) -> str:
        """Returns the text for the model; starts the consultation if `start` did not."""
        self.start(arguments)
        return self._pending[_key(arguments)].result()

    def clear(self) -> None:
        """Discards all results. They serve one batch, because the rules may change between two."""
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()

    def as_tool(self) -> Callable[..., str]:
        """Returns the function that TRL calls by its name."""

        def consult_safety_rules(**arguments: Any) -> str:
            return self.consult(arguments)

        assert consult_safety_rules.__name__ == RULE_TOOL
        return consult_safety_rules

    async def _consult(self, arguments: dict[str, Any]) -> str:
        async with self._semaphore:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            try:
                return (await self._client.consult(arguments)).text
            except RulesError:
                self.failures += 1
                return UNAVAILABLE
            finally:
                self._in_flight -= 1

    def _wait(self, awaitable: Awaitable[T]) -> T:
        async def wrapped() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result()


def _key(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
