"""What every request passes first, whichever protocol it speaks: Host, Origin and body size."""

from __future__ import annotations

from urllib.parse import urlsplit

from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rule_server.settings import LOOPBACK, Settings

__all__ = ["HostCheck", "RequestBodyLimitMiddleware"]

PROBES = {"/healthz", "/readyz"}


class HostCheck:
    """Answers only under its own names, so that no web page can reach a local service by DNS rebinding.

    A web page may ask when it comes from the service itself or from an origin in the settings. Health probes
    are exempt: an orchestrator asks under an address that nobody knows beforehand.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = {name.lower() for name in (*LOOPBACK, settings.host, *settings.allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PROBES:
            headers = Headers(scope=scope)
            host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
            refusal = None
            if "*" not in self._hosts and _name(host) not in self._hosts:
                detail = "this Host is not served: add its name to ASCL_RULES_ALLOWED_HOSTS"
                refusal = JSONResponse({"detail": detail}, 421)
            elif origin and origin != f"{scope['scheme']}://{host}" and origin not in self._origins:
                detail = "this Origin may not ask: add it to ASCL_RULES_ALLOWED_ORIGINS"
                refusal = JSONResponse({"detail": detail}, 403)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """The name in a Host header, without its port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
