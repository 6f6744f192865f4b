"""The rule service as the agent sees it: its tool, its rulebook's name and digest, and consultations, by MCP.

Every exchange opens an MCP session of its own over one connection pool. A shared session would be a little
cheaper, but one refused connection ends it together with every consultation in flight.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from agent.episode import RuleHit
from agent.errors import RulesError
from agent.urls import bearer, public_address, without_secrets

if TYPE_CHECKING:
    import httpx2
    from mcp import Client

RULE_TOOL = "consult_safety_rules"
RULEBOOK = "rulebook://current"

T = TypeVar("T")


@dataclass(frozen=True)
class ConsultResult:
    """What the service answered: the text for the model, and the same as data (None when it gave none)."""

    text: str
    structured: dict[str, Any] | None
    is_error: bool


class RulesClient:
    """Asks a rule service over streamable HTTP. Use as an async context manager; calls may run at once.

    Args:
        url: its MCP address.
        token: sent as a bearer token.
        timeout: seconds for one exchange.
        waits: seconds before each further try when it cannot be reached; enough for a service that restarts.

    Raises:
        RulesError: when the address or the token cannot be used; and from every method, when the service
            cannot be reached or is no rule service.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        waits: tuple[float, ...] = (0.2, 1.0),
    ) -> None:
        try:
            self.public_url = public_address(url)
            """The address as it is shown and recorded."""
        except ValueError as error:
            raise RulesError(
                f"the rule service's address {without_secrets(url)!r} cannot be asked ({error}): "
                "give one such as http://127.0.0.1:8808/mcp",
                type="bad_address",
                setup=True,
            ) from None
        try:
            self._headers = bearer(token)
        except ValueError as error:
            raise RulesError(
                f"the rule service's token cannot be sent: {error}; set ASCL_RULES_TOKEN anew",
                type="bad_token",
                setup=True,
            ) from None
        self.url = url
        self._timeout = timeout
        self._waits = waits
        self._http: httpx2.AsyncClient | None = None
        self._version: str | None = None

    async def __aenter__(self) -> RulesClient:
        import httpx2

        self._http = httpx2.AsyncClient(headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def rulebook(self) -> dict[str, Any]:
        """Name, version and digest of the rulebook that is being served."""
        result = await self._exchange(lambda client: client.read_resource(RULEBOOK))
        text = getattr(result.contents[0], "text", "") if result.contents else ""
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("digest"), str):
            raise RulesError(
                f"{self.public_url} answers MCP, but its {RULEBOOK} holds no rulebook digest: "
                "is it a rule service?",
                type="not_a_rule_service",
                setup=True,
            )
        return value

    async def tool(self) -> dict[str, Any]:
        """The rule tool in the form that Chat Completions takes."""
        listed = (await self._exchange(lambda client: client.list_tools())).tools
        for tool in listed:
            if tool.name == RULE_TOOL:
                function = {
                    "name": tool.name,
                    "description": tool.description or "",
                    "parameters": tool.input_schema,
                }
                return {"type": "function", "function": function}
        names = ", ".join(tool.name for tool in listed) or "none"
        raise RulesError(
            f"{self.public_url} offers no tool {RULE_TOOL} (it offers: {names})",
            type="not_a_rule_service",
            setup=True,
        )

    async def consult(self, arguments: dict[str, Any]) -> ConsultResult:
        """Ask the rules; arguments that the service refuses come back as a result with `is_error`."""
        result = await self._exchange(lambda client: client.call_tool(RULE_TOOL, arguments))
        parts = [part.text for part in result.content if part.type == "text"]
        return ConsultResult("\n".join(parts), result.structured_content, bool(result.is_error))

    async def _exchange(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        import httpx2
        from mcp import MCPError

        for wait in (*self._waits, None):
            try:
                async with self._session() as client:
                    return await ask(client)
            except Exception as group:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # The transport's task groups may turn a cancellation into an error of their own.
                    raise asyncio.CancelledError from group
                error = _first(group)
                if isinstance(error, httpx2.TransportError) and wait is not None:
                    await asyncio.sleep(wait)
                    continue
                if isinstance(error, httpx2.TransportError):
                    raise RulesError(
                        f"the rule service at {self.public_url} cannot be reached ({error}): "
                        "is it running? `ascl-rules serve` starts one",
                        type="unreachable",
                        setup=True,
                    ) from error
                if isinstance(error, httpx2.HTTPStatusError) and error.response.status_code in (401, 403):
                    raise RulesError(
                        f"the rule service at {self.public_url} does not accept the token "
                        f"({error.response.status_code}): set ASCL_RULES_TOKEN to one that it does",
                        type="unauthorized",
                        setup=True,
                    ) from error
                if isinstance(error, MCPError | httpx2.HTTPError | httpx2.InvalidURL | ValueError):
                    if self._version is not None:
                        raise RulesError(
                            f"the rule service at {self.public_url} did not answer properly ({_said(error)})",
                            type="protocol",
                        ) from error
                    raise RulesError(
                        f"{self.public_url} gave no MCP answer ({_said(error)}): "
                        "does the address end in /mcp?",
                        type="protocol",
                        setup=True,
                    ) from error
                raise
        raise AssertionError("the last try either returned or raised")

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Client]:
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        if self._http is None:
            raise RuntimeError("RulesClient is used outside its `async with` block")
        transport = streamable_http_client(self.url, http_client=self._http)
        async with Client(
            transport, mode=self._mode(), cache=None, read_timeout_seconds=self._timeout
        ) as client:
            self._version = client.protocol_version
            yield client

    def _mode(self) -> str:
        """Negotiate once; afterwards go straight to what was agreed."""
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        if self._version is None:
            return "auto"
        return self._version if self._version in MODERN_PROTOCOL_VERSIONS else "legacy"


def read_verdict(result: ConsultResult) -> tuple[dict[str, Any], str | None]:
    """The fields of a consultation in a result, and why there is no verdict (None when there is one)."""
    if result.is_error:
        return {}, result.text
    data = result.structured
    if not isinstance(data, dict) or not isinstance(data.get("verdict"), str):
        return {}, "the service gave no verdict"
    try:
        rules = [RuleHit.model_validate(_hit(rule)) for rule in data.get("rules") or []]
    except (ValidationError, TypeError) as error:
        return {}, f"the service described its rules in an unknown way: {error}"
    rulebook = data.get("rulebook") or {}
    return {
        "verdict": data["verdict"],
        "rules": rules,
        "threshold": data.get("threshold"),
        "digest": rulebook.get("digest"),
    }, None


def _hit(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: rule.get(name) for name in ("id", "category", "stance", "score")}


def _said(error: Exception) -> str:
    """An error without the address, which it may name with a key in it."""
    import httpx2

    return (
        f"it answered {error.response.status_code}"
        if isinstance(error, httpx2.HTTPStatusError)
        else str(error)
    )


def _first(error: BaseException) -> BaseException:
    """The first error inside nested groups: the transport runs in task groups, which wrap what they raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
