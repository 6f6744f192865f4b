"""Header values without the white space around them, which is no part of a value (RFC 9110, 5.5)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

SPACE = b" \t"


class HeaderSpace:
    """Trims what the HTTP parser leaves behind a value, so that whoever compares values need not do so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(value[-1:] in (b" ", b"\t") for _, value in scope["headers"]):
            trimmed = [(name, value.strip(SPACE)) for name, value in scope["headers"]]
            scope = {**scope, "headers": trimmed}
        await self._app(scope, receive, send)
