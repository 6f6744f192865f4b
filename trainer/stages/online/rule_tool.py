"""Consultations of many episodes at once, for a trainer that calls tools one at a time.

TRL runs the calls of a batch one after the other, so a batch waits for as many consultations as it made. Here
all of them begin as soon as the batch is written (`begin`), run together in a thread of their own, and the
tool that TRL calls (`consult`) only picks its answer up.
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
"""What the model reads when the service fails; an episode that holds it has no reward."""

T = TypeVar("T")


class BatchedRuleTool:
    """Use as a context manager.

    Args:
        url: MCP address of the rule service.
        token: sent as a bearer token.
        most: consultations in flight at once.

    Raises:
        RulesError: on entering, when the service cannot be asked.
    """

    def __init__(self, url: str, token: str | None = None, *, most: int = 64) -> None:
        self.in_flight_most = 0
        """Most consultations that were under way at once."""
        self.failures = 0
        """Consultations that the service did not answer."""
        self.tool: dict[str, Any] = {}
        """The tool as the service offers it, in the form that chat templates take."""
        self.digest = ""
        """Of the rulebook."""
        self._url, self._token, self._most = url, token, most
        self._in_flight = 0
        self._pending: dict[str, Future[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rules-desk", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._gate = asyncio.Semaphore(self._most)
        self._client = RulesClient(self._url, self._token)
        try:
            self._wait(self._client.__aenter__())
            self.digest = str(self._wait(self._client.rulebook())["digest"])
            self.tool = self._wait(self._client.tool())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()
        self._wait(self._client.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def begin(self, arguments: dict[str, Any]) -> None:
        """Ask without waiting; the same question of several episodes is asked once."""
        key = _key(arguments)
        if key not in self._pending:
            self._pending[key] = asyncio.run_coroutine_threadsafe(self._ask(arguments), self._loop)

    def consult(self, arguments: dict[str, Any]) -> str:
        """The text for the model, asked now unless it has begun."""
        self.begin(arguments)
        return self._pending[_key(arguments)].result()

    def forget(self) -> None:
        """Answers are kept for one batch: the rules may change between two."""
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()

    def as_tool(self) -> Callable[..., str]:
        """The function that TRL calls by its name."""

        def consult_safety_rules(**arguments: Any) -> str:
            return self.consult(arguments)

        assert consult_safety_rules.__name__ == RULE_TOOL
        return consult_safety_rules

    async def _ask(self, arguments: dict[str, Any]) -> str:
        async with self._gate:
            self._in_flight += 1
            self.in_flight_most = max(self.in_flight_most, self._in_flight)
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
