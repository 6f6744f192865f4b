"""Refusals by HTTP: `{"detail": one sentence}`, whatever refused, and how OpenAPI lists them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response


class ErrorBody(BaseModel):
    """Why a request was refused."""

    detail: str
    """One sentence, with what to do about it."""


STATUS_DESCRIPTIONS = {
    400: "The request is not well-formed.",
    401: "No token, or one that is not valid (any more).",
    403: "The token lacks the scope, or a web page of this Origin may not ask.",
    404: "There is no such thing.",
    405: "Another method is needed: see Allow.",
    406: "The answer cannot be had in what Accept names.",
    408: "The body came too slowly.",
    409: "The edited rules cannot be served.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    421: "This Host is not served here.",
    422: "An argument is wrong.",
    429: "Too many requests: see Retry-After.",
    503: "The service is starting, busy or too slow: see Retry-After.",
}
ANYWHERE = (400, 401, 403, 405, 408, 413, 421, 429, 503)
"""Statuses with which any route may refuse."""


def error_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal. Its body is small and known, so it is made without a schema."""
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def listed(*own: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route for its OpenAPI entry: those of all routes, and its own."""
    statuses = sorted({*ANYWHERE, *own})
    return {status: {"model": ErrorBody, "description": STATUS_DESCRIPTIONS[status]} for status in statuses}


class RefusedRequest(Exception):
    """A request that goes no further, and the answer to it."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = error_response(status, detail, headers)
