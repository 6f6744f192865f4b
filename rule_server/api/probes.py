"""Routes for operators: health probes, metrics and the OAuth metadata."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from rule_server.api.auth import Authenticator
from rule_server.observability.metrics import CONTENT_TYPE
from rule_server.service.rule_service import RuleService


def create_probes(service: RuleService, auth: Authenticator) -> APIRouter:
    """Creates the routes. The OAuth metadata is served only when OAuth is configured."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        status = {
            "ready": service.ready,
            "digest": service.rulebook.digest,
            "reload_error": service.reload_error,
            "tokens_error": auth.tokens.error if auth.tokens is not None else None,
            "degraded": service.degraded,
            "precision": service.precision,
            "threshold": {"value": service.threshold.value, "note": service.threshold.note},
        }
        return JSONResponse(status, 200 if service.ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    if auth.metadata is not None:

        @router.get(auth.metadata_path)
        async def protected_resource() -> JSONResponse:
            return JSONResponse(auth.metadata)

    return router
