"""What every request passes first, whichever protocol it speaks.

One class rather than a stack of them: each layer of its own would cost every consultation another call chain.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rule_server.auth import CALLER, LOCAL, anonymous, is_public, needed_scope
from rule_server.errors import AuthUnavailableError
from rule_server.limits import RateLimit
from rule_server.problems import problem
from rule_server.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from starlette.responses import Response

    from rule_server.auth import Authenticator, Principal

PROBES = {"/healthz", "/readyz"}
NO_BODY = {"GET", "HEAD", "OPTIONS", "DELETE"}
CLOSE = {"Connection": "close"}
"""With a refusal that leaves a body unread: nobody may go on sending it for ever."""


class Refused(Exception):
    """A request that goes no further, and the answer to it."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = problem(status, detail, headers)


class Gate:
    """Checks Host, Origin, caller, rate, number and body of requests, and how long one may take.

    Health probes are exempt: an orchestrator asks without a token, under an address nobody knows beforehand.
    """

    def __init__(self, app: ASGIApp, settings: Settings, auth: Authenticator, mcp: ASGIApp) -> None:
        """`mcp` answers POST at /mcp."""
        self._app = app
        self._mcp = mcp
        self._settings = settings
        self._names = NameCheck(settings)
        self._auth = auth
        self._rate = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._settings.concurrency:
            busy = problem(503, "too many requests at once: try again", {"Retry-After": "1", **CLOSE})
            await busy(scope, receive, send)
            return
        self._under_way += 1
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        answer: Response | None = None
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                await self._admitted(scope, receive, sending)
        except Refused as refusal:
            answer = refusal.answer
        except TimeoutError:
            answer = problem(503, "the answer took too long: try again", {"Retry-After": "1"})
        finally:
            self._under_way -= 1
        if answer is not None and not started:
            await answer(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._names.check(scope["scheme"], headers.get(b"host", b""), headers.get(b"origin", b""))
        path, method = scope["path"], scope["method"]
        principal = await self._caller(scope, headers.get(b"authorization"))
        if self._rate is not None and principal.limited and (wait := self._rate.wait(principal.name)):
            raise Refused(429, "too many requests: slow down", {"Retry-After": str(math.ceil(wait))})
        if path == "/mcp" and method != "POST":
            # Without sessions there is nothing to stream or to end; a GET would hold its connection for ever.
            raise Refused(405, "MCP here takes POST only", {"Allow": "POST"})
        token = CALLER.set(principal)
        try:
            if method not in NO_BODY or b"content-length" in headers or b"transfer-encoding" in headers:
                receive = await self._whole_body(headers.get(b"content-length"), receive)
            await (self._mcp if path == "/mcp" else self._app)(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _caller(self, scope: Scope, authorization: bytes | None) -> Principal:
        path = scope["path"]
        client = scope["client"][0] if scope["client"] else ""
        if is_public(path, scope["method"]):
            return LOCAL if self._settings.loopback else anonymous(client)
        try:
            principal = await self._auth.principal(authorization, client)
        except AuthUnavailableError as error:
            raise Refused(503, str(error), {"Retry-After": "10"}) from None
        if principal is None:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=authorization is not None)}
            what = "this token is not valid" if authorization else "a token is needed"
            raise Refused(401, f"{what}: send `Authorization: Bearer TOKEN`", challenge)
        scope_needed = needed_scope(path)
        if scope_needed not in principal.scopes:
            challenge = {"WWW-Authenticate": self._auth.challenge(given=True, scope=scope_needed)}
            raise Refused(403, f"this caller lacks the scope `{scope_needed}`", challenge)
        return principal

    async def _whole_body(self, declared: bytes | None, receive: Receive) -> Receive:
        """Read the body in the time and size it may have; what comes back gives it again."""
        most = self._settings.max_body
        too_large = f"the body is larger than {most} bytes"
        # The HTTP parser lets digits alone through, up to 2**64; int() itself would refuse very many of them.
        if declared is not None and declared.isdigit() and (len(declared) > 20 or int(declared) > most):
            raise Refused(413, too_large, CLOSE)
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
            raise Refused(413, too_large, CLOSE)
        first: list[Message] = [message]

        async def again() -> Message:
            return first.pop() if first else await receive()

        return again


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            return await receive()
    except TimeoutError:
        raise Refused(408, "the body came too slowly: send it at once", CLOSE) from None


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
                raise Refused(421, "this Host is not served: add its name to ASCL_RULES_ALLOWED_HOSTS")
            if len(self._good) < 1000:
                self._good.add(host)
        if origin:
            named = origin.decode("latin-1").lower()
            if named != f"{scheme}://{host.decode('latin-1').lower()}" and named not in self._origins:
                raise Refused(403, "this Origin may not ask: add it to ASCL_RULES_ALLOWED_ORIGINS")


def _name(host: bytes) -> str:
    """The name in a Host header, without its port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host.decode('latin-1').lower()}").hostname or ""
    except ValueError:
        return ""
