"""The service as REST, under /v1: the same question and answer, and the rulebook to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from rule_server.errors import ConsultError, NotReadyError
from rule_server.schemas import (
    CategoryView,
    ConsultRequest,
    ConsultResponse,
    NearestResponse,
    RulebookRef,
    RuleView,
    explain,
)
from rule_server.service import RuleService

ETag = Annotated[str | None, Header(alias="if-none-match")]


def create_router(service: RuleService) -> APIRouter:
    """Routes of the REST interface."""
    router = APIRouter(prefix="/v1", tags=["rules"])

    def fresh(response: Response, etag: str | None) -> bool:
        """Whether the caller has this rulebook already; sets the ETag for the next time."""
        current = f'"{service.rulebook.digest}"'
        response.headers["ETag"] = current
        return etag is not None and current in [part.strip().removeprefix("W/") for part in etag.split(",")]

    def unchanged(response: Response) -> Response:
        return Response(status_code=304, headers={"ETag": response.headers["ETag"]})

    @router.post("/consult", summary="The rules that apply to a situation")
    async def consult(request: ConsultRequest) -> ConsultResponse:
        return await service.consult(request)

    @router.post("/nearest", summary="The nearest rules and their scores, those below the threshold too")
    async def nearest(request: ConsultRequest) -> NearestResponse:
        return await service.nearest(request)

    @router.get("/rules", summary="Every active rule", response_model=list[RuleView])
    async def rules(response: Response, if_none_match: ETag = None) -> Response | list[RuleView]:
        if fresh(response, if_none_match):
            return unchanged(response)
        return [RuleView.of(rule) for rule in service.rulebook.served.values()]

    @router.get("/rules/{id}", summary="One rule", response_model=RuleView)
    async def rule(id: str, response: Response, if_none_match: ETag = None) -> Response | RuleView:
        found = service.rulebook.served.get(id)
        if found is None:
            raise HTTPException(404, f"the rulebook has no rule {id[:64]!r}: GET /v1/rules lists them")
        return unchanged(response) if fresh(response, if_none_match) else RuleView.of(found)

    @router.get("/categories", summary="The categories", response_model=list[CategoryView])
    async def categories(response: Response, if_none_match: ETag = None) -> Response | list[CategoryView]:
        if fresh(response, if_none_match):
            return unchanged(response)
        return [CategoryView.of(category, service.rulebook) for category in service.rulebook.categories]

    @router.get("/rulebook", summary="Name, version and digest", response_model=RulebookRef)
    async def rulebook(response: Response, if_none_match: ETag = None) -> Response | RulebookRef:
        return unchanged(response) if fresh(response, if_none_match) else RulebookRef.of(service.rulebook)

    return router


def add_error_answers(app: FastAPI) -> None:
    """Errors as `{"detail": one sentence}`, without the caller's text in them."""

    def answer(
        status: int, headers: dict[str, str] | None = None
    ) -> Callable[[Request, Exception], Response]:
        def handler(_: Request, error: Exception) -> Response:
            detail = explain(error.errors()) if isinstance(error, RequestValidationError) else str(error)
            return JSONResponse({"detail": detail}, status, headers)

        return handler

    app.add_exception_handler(RequestValidationError, answer(422))
    app.add_exception_handler(ConsultError, answer(422))
    app.add_exception_handler(NotReadyError, answer(503, {"Retry-After": "1"}))
