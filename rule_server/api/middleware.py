"""What every request passes first, whichever protocol it speaks.

One class rather than a stack of them: each layer of its own would cost every consultation another call chain.
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

from rule_server.api.auth import RateLimit, is_public, nameless, needed_scope
from rule_server.api.error_responses import RefusedRequest, error_response
from rule_server.errors import AuthUnavailableError
from rule_server.observability import CURRENT_CALLER, describe_request, log_access
from rule_server.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from starlette.responses import Response

    from rule_server.api.auth import Authenticator, Principal
    from rule_server.observability import Tracing
    from rule_server.observability.metrics import Metrics

log = logging.getLogger(__name__)

DIRECT = {"/mcp", "/v1/consult"}
"""Paths that the app behind the gate does not route."""
PROBES = {"/healthz", "/readyz"}
NO_BODY = {"GET", "HEAD", "OPTIONS", "DELETE"}
ONCE = (b"host", b"origin", b"authorization", b"content-length", b"content-type")
CLOSE = {"Connection": "close"}
"""With a refusal that leaves a body unread: nobody may go on sending it for ever."""


@dataclass
class Request:
    """What is known of a request when it is over."""

    status: int = 500
    caller: str = "-"


class RequestMiddleware:
    """Checks Host, Origin, caller, rate, number and body of requests, and how long one may take.

    Health probes are exempt: an orchestrator asks without a token, under an address nobody knows beforehand.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, ASGIApp],
        settings: Settings,
        auth: Authenticator,
        metrics: Metrics,
        telemetry: Tracing | None,
    ) -> None:
        """`direct` answers POST at its paths; everything else is for `app`."""
        self._app = app
        self._direct = direct
        self._settings = settings
        self._names = NameCheck(settings)
        self._auth = auth
        self._metrics = metrics
        self._telemetry = telemetry
        self._rate = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._settings.concurrency:
            busy = error_response(503, "too many requests at once: try again", {"Retry-After": "1", **CLOSE})
            await busy(scope, receive, send)
            return
        self._under_way += 1
        began = time.perf_counter()
        request = Request()
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                request.status = message["status"]
            await send(message)

        answer: Response | None = None
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                await self._observed(request, scope, receive, sending)
        except RefusedRequest as refusal:
            answer = refusal.answer
        except TimeoutError:
            answer = error_response(503, "the answer took too long: try again", {"Retry-After": "1", **CLOSE})
        except Exception:
            log.exception("a request failed")
            answer = error_response(500, "the service failed: its log says why", CLOSE)
        finally:
            self._under_way -= 1
        if answer is not None and not started:
            await answer(scope, receive, sending)
        self._tell(request, scope, time.perf_counter() - began)

    async def _observed(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        if self._telemetry is None:
            await self._admitted(request, scope, receive, send)
            return
        with self._telemetry.request(scope["method"], dict(scope["headers"])) as span:
            try:
                await self._admitted(request, scope, receive, send)
            except RefusedRequest as refusal:
                request.status = refusal.answer.status_code
                await refusal.answer(scope, receive, send)
            finally:
                describe_request(span, request.caller, scope["method"], route_of(scope), request.status)

    def _tell(self, request: Request, scope: Scope, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.request(route, request.status, seconds)
        if self._settings.access_log:
            log_access(request.caller, scope["method"], route, request.status, seconds)

    async def _admitted(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers(scope)
        self._names.check(scope["scheme"], headers.get(b"host", b""), headers.get(b"origin", b""))
        path, method = scope["path"], scope["method"]
        principal = await self._caller(scope, headers.get(b"authorization"))
        request.caller = principal.name
        if self._rate is not None and principal.limited and (wait := self._rate.wait(principal.name)):
            raise RefusedRequest(429, "too many requests: slow down", {"Retry-After": str(math.ceil(wait))})
        if path == "/mcp" and method != "POST":
            # Without sessions there is nothing to stream or to end; a GET would hold its connection for ever.
            raise RefusedRequest(405, "MCP here takes POST only", {"Allow": "POST"})
        token = CURRENT_CALLER.set(principal)
        try:
            if method not in NO_BODY or b"content-length" in headers or b"transfer-encoding" in headers:
                receive = await self._whole_body(headers.get(b"content-length"), receive)
            app = self._direct.get(path, self._app) if method == "POST" else self._app
            await app(scope, receive, send)
        finally:
            CURRENT_CALLER.reset(token)

    @staticmethod
    def _headers(scope: Scope) -> dict[bytes, bytes]:
        """The headers by name. The scope gets them without the space that the HTTP parser leaves behind.

        White space around a value is no part of it (RFC 9110, 5.5).
        """
        pairs = scope["headers"]
        if any(value[-1:] in (b" ", b"\t") for _, value in pairs):
            scope["headers"] = pairs = [(name, value.strip(b" \t")) for name, value in pairs]
        headers = dict(pairs)
        if len(headers) != len(pairs):
            names = [name for name, _ in pairs]
            if any(names.count(name) > 1 for name in ONCE):
                raise RefusedRequest(400, "a header that may come once comes twice")
        return headers

    async def _caller(self, scope: Scope, authorization: bytes | None) -> Principal:
        path = scope["path"]
        client = scope["client"][0] if scope["client"] else ""
        if is_public(path, scope["method"]):
            return nameless(self._settings, client)
        try:
            principal = await self._auth.principal(authorization, client)
        except AuthUnavailableError as error:
            raise RefusedRequest(503, str(error), {"Retry-After": "10"}) from None
        if principal is None:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=authorization is not None)}
            what = "this token is not valid" if authorization else "a token is needed"
            raise RefusedRequest(401, f"{what}: send `Authorization: Bearer TOKEN`", challenge)
        scope_needed = needed_scope(path)
        if scope_needed not in principal.scopes:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=True, scope=scope_needed)}
            raise RefusedRequest(403, f"this caller lacks the scope `{scope_needed}`", challenge)
        return principal

    async def _whole_body(self, declared: bytes | None, receive: Receive) -> Receive:
        """Read the body in the time and size it may have; what comes back gives it again."""
        most = self._settings.max_body
        too_large = f"the body is larger than {most} bytes"
        # The HTTP parser lets digits alone through, up to 2**64; int() itself would refuse very many of them.
        if declared is not None and declared.isdigit() and (len(declared) > 20 or int(declared) > most):
            raise RefusedRequest(413, too_large, CLOSE)
        message = await _in_time(receive, self._settings.body_timeout)
        if message["type"] == "http.request" and message.get("more_body"):
            pieces = [message.get("body", b"")]
            size = len(pieces[0])
            until = asyncio.get_running_loop().time() + self._settings.body_timeout
            while message.get("more_body") and size <= most:
                message = await _in_time(receive, until - asyncio.get_running_loop().time())
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if message["type"] != "http.request":
                    break
            else:
                message = {"type": "http.request", "body": b"".join(pieces), "more_body": False}
        if len(message.get("body", b"")) > most:
            raise RefusedRequest(413, too_large, CLOSE)
        first: list[Message] = [message]

        async def again() -> Message:
            return first.pop() if first else await receive()

        return again


def route_of(scope: Scope) -> str:
    """The path as the code declares it; what a caller made up is `other`."""
    if scope["path"] in DIRECT:
        return str(scope["path"])
    return getattr(scope.get("route"), "path", None) or "other"


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            return await receive()
    except TimeoutError:
        raise RefusedRequest(408, "the body came too slowly: send it at once", CLOSE) from None


class NameCheck:
    """Answers only under its own names, so that no web page can reach a local service by DNS rebinding.

    A web page may ask when it comes from the service itself or from an origin in the settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._hosts = {name.lower() for name in (*LOOPBACK, settings.host, *settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        self._good: set[bytes] = set()

    def check(self, scheme: str, host: bytes, origin: bytes) -> None:
        """Raises Refused."""
        if host not in self._good:
            if "*" not in self._hosts and _name(host) not in self._hosts:
                raise RefusedRequest(421, "this Host is not served: add its name to ASCL_RULES_ALLOWED_HOSTS")
            if len(self._good) < 1000:
                self._good.add(host)
        if origin:
            named = origin.decode("latin-1").lower()
            if named != f"{scheme}://{host.decode('latin-1').lower()}" and named not in self._origins:
                raise RefusedRequest(403, "this Origin may not ask: add it to ASCL_RULES_ALLOWED_ORIGINS")


def _name(host: bytes) -> str:
    """The name in a Host header, without its port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host.decode('latin-1').lower()}").hostname or ""
    except ValueError:
        return ""
