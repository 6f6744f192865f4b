"""Client of the rule service over MCP: its tool, the name and digest of its rulebook, and consultations.

With the stateless protocol revision, all MCP requests share one session, and each takes one HTTP request. The
first one negotiates the revision. With an older revision, each opens its own session, so that the end of one
session fails no other request.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from agent.episode import Hint, RuleHit
from agent.errors import RulesError
from agent.tools.guidance import HINT_PROMPT, offers_hints, read_guidance, read_hint
from agent.tools.rejection import fits_schema, rejects_arguments
from agent.urls import bearer, public_address, without_secrets

if TYPE_CHECKING:
    import httpx2
    from mcp import Client, MCPError

    from agent.tools.rules_http import RequestState
    from agent.tools.rules_session import SharedSession

RULE_TOOL = "consult_safety_rules"
"""Name of the rule tool."""
RULEBOOK_URI = "rulebook://current"
"""MCP resource that describes the rulebook."""
_MAX_REASON_CHARS = 300

T = TypeVar("T")


@dataclass(frozen=True)
class ConsultResult:
    """Result of a consultation: the text for the model, and the structured data (None if there is none).

    `is_error` means that the service rejected the arguments; `text` says why.
    """

    text: str
    structured: dict[str, Any] | None
    is_error: bool


class RulesClient:
    """Queries a rule service over streamable HTTP. Use as an async context manager; calls may overlap.

    Args:
        url: MCP URL of the service.
        token: sent as a bearer token.
        timeout: seconds for one request, including the waits that an overloaded service asks for.
        waits: seconds before each retry of a failed connection; long enough for a restart of the service.

    Raises:
        RulesError: if the URL or the token is invalid; from every method, if the service cannot be reached or
            is not a rule service.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        waits: tuple[float, ...] = (0.2, 1.0, 2.0),
    ) -> None:
        try:
            self.public_url = public_address(url)
            """The URL without secrets, for messages and logs."""
        except ValueError as error:
            raise RulesError(
                f"invalid rule service URL {without_secrets(url)!r}: {error}. "
                "Example: http://127.0.0.1:8808/mcp",
                type="bad_address",
                setup=True,
            ) from None
        try:
            self._headers = bearer(token)
        except ValueError as error:
            raise RulesError(
                f"the rule service's token is invalid: {error}; check ASCL_RULES_TOKEN",
                type="bad_token",
                setup=True,
            ) from None
        self.url = url
        self._timeout = timeout
        self._waits = waits
        self._http: httpx2.AsyncClient | None = None
        self._shared: SharedSession | None = None
        self._version: str | None = None
        self._schema: dict[str, Any] | None = None
        """Input schema of the rule tool; None before it was read."""
        self._offers_hints = False

    async def __aenter__(self) -> RulesClient:
        # The MCP SDK takes half a second to import: here, so that the first consultation does not wait for
        # it, and in a thread, so that the event loop does not either.
        await asyncio.to_thread(_import_sdk)
        from agent.tools.rules_http import WaitingClient
        from agent.tools.rules_session import SharedSession

        self._http = WaitingClient(headers=self._headers, timeout=self._timeout)
        self._shared = SharedSession(self._session)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._shared is not None:
            await self._shared.close()
            self._shared = None
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def rulebook(self) -> dict[str, Any]:
        """Returns the name, version and digest of the current rulebook."""
        result = await self._request(lambda client: client.read_resource(RULEBOOK_URI))
        text = getattr(result.contents[0], "text", "") if result.contents else ""
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("digest"), str):
            raise RulesError(
                f"{self.public_url} answers MCP, but its {RULEBOOK_URI} has no rulebook digest: "
                "check that it is a rule service",
                type="not_a_rule_service",
                setup=True,
            )
        return value

    async def guidance(self) -> str | None:
        """Returns the service's text on when to consult its rulebook; None if the rulebook needs none."""
        return await self._request(read_guidance)

    async def hint(self, request: str) -> Hint:
        """Returns a line about the rules near a request. Raises RulesError, also if there are no hints."""
        start = time.monotonic()
        self._offers_hints = self._offers_hints or await self._request(offers_hints)
        if not self._offers_hints:
            raise RulesError(
                f"{self.public_url} offers no hints (the MCP prompt {HINT_PROMPT}): update the rule service, "
                "or leave --hint out",
                type="no_hints",
                setup=True,
            )
        hint = await self._request(lambda client: read_hint(client, request))
        return hint.model_copy(update={"seconds": time.monotonic() - start})

    async def tool(self) -> dict[str, Any]:
        """Returns the rule tool in the form of Chat Completions."""
        tools = (await self._request(lambda client: client.list_tools())).tools
        for tool in tools:
            if tool.name == RULE_TOOL:
                self._schema = tool.input_schema
                function = {
                    "name": tool.name,
                    "description": tool.description or "",
                    "parameters": tool.input_schema,
                }
                return {"type": "function", "function": function}
        names = ", ".join(tool.name for tool in tools) or "none"
        raise RulesError(
            f"{self.public_url} does not offer the tool {RULE_TOOL} (it offers: {names})",
            type="not_a_rule_service",
            setup=True,
        )

    async def consult(self, arguments: dict[str, Any]) -> ConsultResult:
        """Consults the rules; returns a result with `is_error` if the service rejects the arguments.

        Raises:
            RulesError: the service failed, as reported by HTTP, by JSON-RPC or in the tool's result.
        """
        from mcp import MCPError
        from mcp_types import (
            INVALID_PARAMS,
            CallToolRequest,
            CallToolRequestParams,
            CallToolResult,
            TextContent,
        )

        # `Client.call_tool` would list the tools in each new session to check the result by the tool's
        # schema. `parse_verdict` checks the result instead.
        request = CallToolRequest(params=CallToolRequestParams(name=RULE_TOOL, arguments=arguments))

        async def call(client: Client) -> CallToolResult:
            try:
                return await client.session.send_request(request, CallToolResult)
            except MCPError as error:
                if error.code != INVALID_PARAMS or fits_schema(arguments, self._schema):
                    raise
                content = [TextContent(type="text", text=error.message)]
                return CallToolResult(content=[*content], is_error=True)

        result = await self._request(call)
        text = "\n".join(part.text for part in result.content if part.type == "text")
        if result.is_error and not rejects_arguments(result, arguments, self._schema):
            raise _service_error(self.public_url, text)
        return ConsultResult(text, result.structured_content, bool(result.is_error))

    async def _request(self, send: Callable[[Client], Awaitable[T]]) -> T:
        from agent.tools.rules_http import REQUEST_STATE, RequestState

        deadline = time.monotonic() + self._timeout
        for wait in (*self._waits, None):
            shared = _is_stateless(self._version)
            state = RequestState(deadline, contain_errors=shared)
            REQUEST_STATE.set(state)
            try:
                async with self._open(shared) as client:
                    return await send(client)
            except Exception as group:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # The transport's task groups may turn a cancellation into another error.
                    raise asyncio.CancelledError from group
                error = state.failure or _first_error(group)
                if wait is not None and _is_connection_failure(error):
                    await asyncio.sleep(wait)
                    continue
                rules_error = self._to_rules_error(error, state)
                if rules_error is None:
                    raise
                raise rules_error from error
        raise AssertionError("the last attempt either returned or raised")

    def _to_rules_error(self, error: BaseException, state: RequestState) -> RulesError | None:
        """Returns a failure of the service as one sentence; None for any other exception."""
        import httpx2
        from mcp import MCPError

        if isinstance(error, httpx2.TimeoutException) or "timed out" in str(error).lower():
            return RulesError(
                f"the rule service at {self.public_url} did not answer within {self._timeout:g} s: "
                "check its load, or try again later",
                type="timeout",
            )
        if isinstance(error, httpx2.TransportError) or _is_connection_failure(error):
            return RulesError(
                f"the rule service at {self.public_url} cannot be reached ({error}): "
                "check that it is running (`ascl-rules serve` starts one)",
                type="unreachable",
                setup=True,
            )
        if state.status in (401, 403):
            return RulesError(
                f"the rule service at {self.public_url} rejects the token ({state.status}): "
                "set ASCL_RULES_TOKEN to a valid one",
                type="unauthorized",
                setup=True,
            )
        if not isinstance(error, MCPError | httpx2.HTTPError | httpx2.InvalidURL | ValueError):
            return None
        if (refusal := state.refusal) is not None:
            wait = "" if refusal.wait is None else f" and asked to wait {refusal.wait:g} s"
            return RulesError(
                f"the rule service at {self.public_url} is overloaded: it answered {refusal.status}{wait}; "
                f"this client waits up to {self._timeout:g} s in total. Raise the service's rate limit, or "
                "send fewer requests at a time",
                type=f"http_{refusal.status}",
            )
        if state.status is not None and state.status >= 500:
            return RulesError(
                f"the rule service at {self.public_url} failed: it answered {state.status}. See its log",
                type=f"http_{state.status}",
            )
        if self._version is not None and isinstance(error, MCPError) and _is_from_service(error, state):
            return _service_error(self.public_url, str(error))
        if self._version is not None:
            return RulesError(
                f"the rule service at {self.public_url} returned an invalid answer ({_describe(error)})",
                type="protocol",
            )
        return RulesError(
            f"{self.public_url} returned no MCP answer ({_describe(error)}): does the URL end in /mcp?",
            type="protocol",
            setup=True,
        )

    def _open(self, shared: bool) -> AbstractAsyncContextManager[Client]:
        if self._shared is None:
            raise RuntimeError("RulesClient is not open: use it inside its `async with` block")
        return self._shared.use() if shared else self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Client]:
        """Opens an MCP session; only the first one negotiates the protocol revision."""
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        from agent.tools.rules_http import REQUEST_STATE

        mode = "auto"
        if self._version is not None:
            mode = self._version if _is_stateless(self._version) else "legacy"
        transport = streamable_http_client(self.url, http_client=self._http)
        async with Client(transport, mode=mode, cache=None, read_timeout_seconds=self._timeout) as client:
            # The SDK takes a refused negotiation for an older server: then the next request negotiates again.
            if self._version is None and (
                _is_stateless(client.protocol_version) or not REQUEST_STATE.get().refused
            ):
                self._version = client.protocol_version
            yield client


def parse_verdict(result: ConsultResult) -> tuple[dict[str, Any], str | None]:
    """Returns the fields of a consultation, and the reason for a missing verdict (None if there is one)."""
    if result.is_error:
        return {}, result.text
    data = result.structured
    if not isinstance(data, dict) or not isinstance(data.get("verdict"), str):
        return {}, "the service returned no verdict"
    try:
        rules = [RuleHit.model_validate(_hit(rule)) for rule in data.get("rules") or []]
    except (ValidationError, TypeError) as error:
        return {}, f"the service returned rules in an unknown form: {error}"
    rulebook = data.get("rulebook") or {}
    return {
        "verdict": data["verdict"],
        "rules": rules,
        "threshold": data.get("threshold"),
        "digest": rulebook.get("digest"),
    }, None


def _import_sdk() -> None:
    import agent.tools.rules_http
    import agent.tools.rules_session  # noqa: F401


def _hit(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: rule.get(name) for name in ("id", "category", "stance", "score")}


def _describe(error: Exception) -> str:
    """Describes an error without its URL, which may contain a key."""
    import httpx2

    return (
        f"it answered {error.response.status_code}"
        if isinstance(error, httpx2.HTTPStatusError)
        else str(error)
    )


def _service_error(url: str, reason: str) -> RulesError:
    """Returns the error for a service that answered that it failed."""
    short = reason if len(reason) <= _MAX_REASON_CHARS else f"{reason[:_MAX_REASON_CHARS]}..."
    return RulesError(
        f"the rule service at {url} could not answer ({short or 'without a reason'}): see its log",
        type="service_error",
    )


def _is_from_service(error: MCPError, state: RequestState) -> bool:
    """Returns whether the service sent this JSON-RPC error.

    The SDK itself creates one with the first three codes for an answer that is not MCP, and one with the
    fourth for an HTTP error.
    """
    from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR

    if error.code in (PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND):
        return False
    return error.code != INTERNAL_ERROR or state.status == 200


def _is_stateless(version: str | None) -> bool:
    """Returns whether a protocol revision has no sessions; False for None, before the negotiation."""
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    return version in MODERN_PROTOCOL_VERSIONS


def _is_connection_failure(error: BaseException) -> bool:
    """Returns whether the connection or the MCP session failed, as in a restart of the service."""
    import httpx2
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED

    if isinstance(error, MCPError):
        return error.code == CONNECTION_CLOSED
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.TimeoutException)


def _first_error(error: BaseException) -> BaseException:
    """Returns the first error of nested groups: the transport's task groups wrap their exceptions."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
