"""Forwards the routes below /v1 that the gateway does not handle, without changes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from agent.gateway.settings import is_loopback
from agent.gateway.wire.reply import ReplyHead, ReplyParts, error_reply
from agent.gateway.wire.upstream import RawHeaders, Upstream, UpstreamError, returned_headers

if TYPE_CHECKING:
    from starlette.requests import Request

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_ROUTES = frozenset(
    {
        *("models", "responses", "chat", "completions", "embeddings", "moderations", "audio", "images"),
        *("videos", "files", "uploads", "batches", "fine_tuning", "evals", "vector_stores", "containers"),
        *("conversations", "assistants", "threads", "messages", "realtime", "rerank", "score", "tokenize"),
    }
)
"""Names that /metrics shows; others are `other`, so that their number is bounded."""


def route_label(path: str) -> str:
    """Returns the name of a path's route in /metrics."""
    first = path.strip("/").partition("/")[0]
    return first if first in _ROUTES else "other"


def path_below_v1(request: Request) -> str | None:
    """Returns the path below /v1 in its original spelling; None if it would leave the upstream's base URL."""
    path = str(request.scope["path"])
    if any(part in (".", "..") for part in path.split("/")):
        return None
    raw = request.scope.get("raw_path")
    spelled = raw.decode("latin-1") if isinstance(raw, bytes) else quote(path, safe="/:@")
    return spelled.partition("?")[0].removeprefix("/v1")


def is_from_web_page(request: Request) -> bool:
    """Returns whether a web page of another origin may have sent the request without a preflight.

    Browsers send some content types without a preflight request; JSON is not one of them.
    """
    if request.method in ("GET", "HEAD"):
        return False
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return False
    origin = urlsplit(request.headers.get("origin", "")).hostname
    foreign_site = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return foreign_site or (origin is not None and not is_loopback(origin))


async def forward(
    upstream: Upstream,
    method: str,
    path: str,
    headers: RawHeaders,
    body: bytes,
    query: str,
    own_headers: dict[str, str],
) -> ReplyParts:
    """Yields the upstream's reply to a request, unchanged and as it arrives."""
    content = None if method in ("GET", "HEAD") and not body else body
    try:
        async with upstream.send(method, path, headers, content, query) as response:
            yield ReplyHead(response.status_code, own_headers, returned_headers(response.headers.raw))
            async for piece in response.aiter_bytes():
                yield piece
    except UpstreamError as error:
        async for part in error_reply(error.status, str(error), error.type):
            yield part
