"""Refuses requests that name another host."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from agent.gateway.settings import Settings, is_loopback
from agent.gateway.wire.reply import StreamingReply, error_reply


class HostCheck:
    """Refuses requests for another host: a web page's domain may resolve to this machine's address."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allow_remote = settings.allow_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allow_remote:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name):
                message = f"the host {host[:80]!r} is not this machine: start the gateway with --allow-remote"
                await StreamingReply(error_reply(421, message, "foreign_host"))(scope, receive, send)
                return
        await self._app(scope, receive, send)
