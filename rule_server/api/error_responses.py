"""Error responses, always `{"detail": one sentence}`, and their entries in the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response


class ErrorBody(BaseModel):
    """Reason why a request was refused."""

    detail: str
    """One sentence that says what to do."""


STATUS_DESCRIPTIONS = {
    400: "The request is not well-formed.",
    401: "The token is missing or not valid (any more).",
    403: "The token lacks the scope, or web pages of this Origin may not call the service.",
    404: "Not found.",
    405: "The method is not allowed: see Allow.",
    406: "No response format that Accept names is available.",
    408: "The body arrived too slowly.",
    409: "The edited rules cannot be served.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    421: "This Host is not served here.",
    422: "An argument is invalid.",
    429: "Too many requests: see Retry-After.",
    503: "The service is starting, busy or too slow: see Retry-After.",
}
COMMON_STATUSES = (400, 401, 403, 405, 408, 413, 421, 429, 503)
"""Error statuses of every route."""


def error_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Creates an error response. The body is small and fixed, so it needs no model."""
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI entries of a route's errors: the common ones and `statuses`."""
    every = sorted({*COMMON_STATUSES, *statuses})
    return {status: {"model": ErrorBody, "description": STATUS_DESCRIPTIONS[status]} for status in every}


class RefusedRequest(Exception):
    """A request that the middleware refuses, with the response."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = error_response(status, detail, headers)
