"""Middleware for every request of every protocol: limits, authentication, logging, metrics and traces.

It is one class and not a stack: each further layer would add a call chain to every consultation.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rule_server.api.auth import RateLimit, anonymous_principal, is_public, required_scope
from rule_server.api.error_responses import RefusedRequest, error_response
from rule_server.errors import AuthUnavailableError
from rule_server.observability import CURRENT_CALLER, describe_request, log_access
from rule_server.settings import LOOPBACK_HOSTS, Settings

if TYPE_CHECKING:
    from starlette.responses import Response

    from rule_server.api.auth import Authenticator, Principal
    from rule_server.observability import Tracing
    from rule_server.observability.metrics import Metrics

log = logging.getLogger(__name__)

DIRECT_PATHS = {"/mcp", "/v1/consult"}
"""Paths that bypass the routing of FastAPI."""
PROBE_PATHS = {"/healthz", "/readyz"}
BODYLESS_METHODS = {"GET", "HEAD", "OPTIONS", "DELETE"}
SINGLE_HEADERS = (b"host", b"origin", b"authorization", b"content-length", b"content-type")
CLOSE = {"Connection": "close"}
"""Header of a refusal that leaves the body unread, so that the caller cannot send it without end."""


@dataclass
class RequestSummary:
    """Facts about a finished request, for logs, metrics and traces."""

    status: int = 500
    caller: str = "-"


class RequestMiddleware:
    """Checks Host, Origin, caller, rate, concurrency and body of each request, and limits its duration.

    Health probes are exempt: an orchestrator sends no token and uses addresses that cannot be known in
    advance.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, ASGIApp],
        settings: Settings,
        auth: Authenticator,
        metrics: Metrics,
        tracing: Tracing | None,
    ) -> None:
        """`direct` maps paths to apps that handle POST there; `app` handles all other requests."""
        self._app = app
        self._direct = direct
        self._settings = settings
        self._hosts = HostCheck(settings)
        self._auth = auth
        self._metrics = metrics
        self._tracing = tracing
        self._rate = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/") and scope["path"] != "/":
            # A route is one resource with and without the slash: same scope, same answer, no redirect.
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        if scope["type"] != "http" or scope["path"] in PROBE_PATHS:
            await self._app(scope, receive, send)
            return
        if self._active >= self._settings.concurrency:
            busy = error_response(503, "too many requests at once: try again", {"Retry-After": "1", **CLOSE})
            await busy(scope, receive, send)
            return
        self._active += 1
        start = time.perf_counter()
        summary = RequestSummary()
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                summary.status = message["status"]
            await send(message)

        response: Response | None = None
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                await self._trace(summary, scope, receive, send_and_note)
        except RefusedRequest as refusal:
            response = refusal.response
        except TimeoutError:
            response = error_response(
                503, "the answer took too long: try again", {"Retry-After": "1", **CLOSE}
            )
        except Exception:
            log.exception("a request failed")
            response = error_response(500, "the service failed: its log says why", CLOSE)
        finally:
            self._active -= 1
        if response is not None and not started:
            await response(scope, receive, send_and_note)
        self._record(summary, scope, time.perf_counter() - start)

    async def _trace(self, summary: RequestSummary, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles the request within a span, if tracing is on."""
        if self._tracing is None:
            await self._handle(summary, scope, receive, send)
            return
        with self._tracing.request_span(scope["method"], dict(scope["headers"])) as span:
            try:
                await self._handle(summary, scope, receive, send)
            except RefusedRequest as refusal:
                summary.status = refusal.response.status_code
                await refusal.response(scope, receive, send)
            finally:
                describe_request(span, summary.caller, scope["method"], route_name(scope), summary.status)

    def _record(self, summary: RequestSummary, scope: Scope, seconds: float) -> None:
        route = route_name(scope)
        self._metrics.count_request(route, summary.status, seconds)
        if self._settings.access_log:
            log_access(summary.caller, scope["method"], route, summary.status, seconds)

    async def _handle(self, summary: RequestSummary, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the request and passes it to the app. Raises RefusedRequest."""
        headers = self._headers(scope)
        self._hosts.check(scope["scheme"], headers.get(b"host", b""), headers.get(b"origin", b""))
        path, method = scope["path"], scope["method"]
        principal = await self._authenticate(scope, headers.get(b"authorization"))
        summary.caller = principal.name
        if self._rate is not None and principal.limited and (wait := self._rate.acquire(principal.rate_key)):
            raise RefusedRequest(429, "too many requests: slow down", {"Retry-After": str(math.ceil(wait))})
        if path == "/mcp" and method != "POST":
            # Sessions are off, so there is nothing to stream or end; a GET would hold its connection open.
            raise RefusedRequest(405, "MCP here takes POST only", {"Allow": "POST"})
        token = CURRENT_CALLER.set(principal.name)
        try:
            if (
                method not in BODYLESS_METHODS
                or b"content-length" in headers
                or b"transfer-encoding" in headers
            ):
                receive = await self._read_body(headers.get(b"content-length"), receive)
            app = self._direct.get(path, self._app) if method == "POST" else self._app
            await app(scope, receive, send)
        finally:
            CURRENT_CALLER.reset(token)

    @staticmethod
    def _headers(scope: Scope) -> dict[bytes, bytes]:
        """Returns the headers by name, and strips the white space that the HTTP parser leaves in the scope.

        White space around a value is not part of it (RFC 9110, 5.5).
        """
        pairs = scope["headers"]
        if any(value[-1:] in (b" ", b"\t") for _, value in pairs):
            scope["headers"] = pairs = [(name, value.strip(b" \t")) for name, value in pairs]
        headers = dict(pairs)
        if len(headers) != len(pairs):
            names = [name for name, _ in pairs]
            if any(names.count(name) > 1 for name in SINGLE_HEADERS):
                raise RefusedRequest(400, "a header that may come once comes twice")
        return headers

    async def _authenticate(self, scope: Scope, authorization: bytes | None) -> Principal:
        path = scope["path"]
        client = scope["client"][0] if scope["client"] else ""
        if is_public(path, scope["method"]):
            return anonymous_principal(self._settings, client)
        try:
            principal = await self._auth.authenticate(authorization, client)
        except AuthUnavailableError as error:
            raise RefusedRequest(503, str(error), {"Retry-After": "10"}) from None
        if principal is None:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=authorization is not None)}
            what = "this token is not valid" if authorization else "a token is needed"
            raise RefusedRequest(401, f"{what}: send `Authorization: Bearer TOKEN`", challenge)
        required = required_scope(path)
        if required not in principal.scopes:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=True, scope=required)}
            raise RefusedRequest(403, f"this caller lacks the scope `{required}`", challenge)
        return principal

    async def _read_body(self, declared: bytes | None, receive: Receive) -> Receive:
        """Reads the body within its limits of time and size. Returns a `receive` that delivers it whole."""
        limit = self._settings.max_body
        too_large = f"the body is larger than {limit} bytes"
        # The HTTP parser lets only digits through, up to 2**64; int() itself refuses very long numbers.
        if declared is not None and declared.isdigit() and (len(declared) > 20 or int(declared) > limit):
            raise RefusedRequest(413, too_large, CLOSE)
        message = await _receive_within(receive, self._settings.body_timeout)
        if message["type"] == "http.request" and message.get("more_body"):
            pieces = [message.get("body", b"")]
            size = len(pieces[0])
            deadline = asyncio.get_running_loop().time() + self._settings.body_timeout
            while message.get("more_body") and size <= limit:
                message = await _receive_within(receive, deadline - asyncio.get_running_loop().time())
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if message["type"] != "http.request":
                    break
            else:
                message = {"type": "http.request", "body": b"".join(pieces), "more_body": False}
        if len(message.get("body", b"")) > limit:
            raise RefusedRequest(413, too_large, CLOSE)
        pending: list[Message] = [message]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        return receive_again


def route_name(scope: Scope) -> str:
    """Returns the declared path of the route, or `other` for a path that no route declares."""
    if scope["path"] in DIRECT_PATHS:
        return str(scope["path"])
    return getattr(scope.get("route"), "path", None) or "other"


async def _receive_within(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            return await receive()
    except TimeoutError:
        raise RefusedRequest(408, "the body came too slowly: send it at once", CLOSE) from None


class HostCheck:
    """Refuses unknown Host headers, so that no web page can reach a local service by DNS rebinding.

    A web page may call the service if it comes from the service itself or from an allowed origin.
    """

    def __init__(self, settings: Settings) -> None:
        self._hosts = {name.lower() for name in (*LOOPBACK_HOSTS, settings.host, *settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        self._accepted: set[bytes] = set()

    def check(self, scheme: str, host: bytes, origin: bytes) -> None:
        """Raises RefusedRequest when the Host or the Origin is not allowed."""
        if host not in self._accepted:
            if "*" not in self._hosts and _host_name(host) not in self._hosts:
                raise RefusedRequest(421, "this Host is not served: add its name to ASCL_RULES_ALLOWED_HOSTS")
            if len(self._accepted) < 1000:
                self._accepted.add(host)
        if origin:
            name = origin.decode("latin-1").lower()
            if name != f"{scheme}://{host.decode('latin-1').lower()}" and name not in self._origins:
                raise RefusedRequest(403, "this Origin may not ask: add it to ASCL_RULES_ALLOWED_ORIGINS")


def _host_name(host: bytes) -> str:
    """Returns the name in a Host header without port and brackets; empty if the header is malformed."""
    try:
        return urlsplit(f"//{host.decode('latin-1').lower()}").hostname or ""
    except ValueError:
        return ""
