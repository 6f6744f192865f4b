"""The service as REST, under /v1: the same question and answer, and the rulebook and its use to read."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from rule_server.api.error_responses import error_response, listed
from rule_server.errors import ConsultError, NotReadyError, RuleServiceError, UnknownDigestError
from rule_server.schemas import (
    CategoryView,
    ConsultResponse,
    Digest,
    NearestResponse,
    RestConsultRequest,
    RulebookRef,
    RuleView,
    explain,
)
from rule_server.service import Changes, UsageView
from rule_server.service.rule_service import RuleService

ETag = Annotated[str | None, Header(alias="if-none-match")]
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The rulebook is the one that If-None-Match names."}
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": RestConsultRequest.model_json_schema()}},
    }
}


def create_router(service: RuleService, *, tokens: bool) -> APIRouter:
    """Routes of the REST interface. `tokens` says in the OpenAPI document that callers are asked for one."""
    # The gate has checked the token by then: this only tells generated clients to send it.
    bearer = [Security(HTTPBearer(auto_error=False))] if tokens else []
    router = APIRouter(prefix="/v1", tags=["rules"], responses=listed(), dependencies=bearer)

    def fresh(response: Response, etag: str | None) -> bool:
        """Whether the caller has this rulebook already; sets the ETag for the next time."""
        current = f'"{service.rulebook.digest}"'
        response.headers["ETag"] = current
        return etag is not None and current in [part.strip().removeprefix("W/") for part in etag.split(",")]

    def unchanged(response: Response) -> Response:
        return Response(status_code=304, headers={"ETag": response.headers["ETag"]})

    @router.post(
        "/consult",
        summary="The rules that apply to a situation",
        response_model=ConsultResponse,
        responses=listed(404, 415, 422),
        openapi_extra=BODY,
    )
    async def consult(request: Request) -> Response:
        return await consult_by_rest(service, request.headers.get("content-type", ""), await request.body())

    @router.post(
        "/nearest",
        summary="The nearest rules and their scores, those below the threshold too",
        description="For people who ask why a rule came or did not; `top_k` is how many are told (10).",
        response_model=NearestResponse,
        responses=listed(404, 415, 422),
        openapi_extra=BODY,
    )
    async def nearest(request: Request) -> Response:
        asked = _asked(request.headers.get("content-type", ""), await request.body())
        if isinstance(asked, Response):
            return asked
        answer = await service.nearest(asked, digest=asked.digest)
        return Response(answer.model_dump_json(), media_type="application/json")

    @router.get(
        "/rules", summary="Every active rule", response_model=list[RuleView], responses=UNCHANGED | listed()
    )
    async def rules(response: Response, if_none_match: ETag = None) -> Response | list[RuleView]:
        if fresh(response, if_none_match):
            return unchanged(response)
        return [RuleView.of(rule) for rule in service.rulebook.served.values()]

    @router.get("/rules/{id}", summary="One rule", response_model=RuleView, responses=UNCHANGED | listed(404))
    async def rule(id: str, response: Response, if_none_match: ETag = None) -> Response | RuleView:
        found = service.rulebook.served.get(id)
        if found is None:
            raise HTTPException(404, f"the rulebook has no rule {id[:64]!r}: GET /v1/rules lists them")
        return unchanged(response) if fresh(response, if_none_match) else RuleView.of(found)

    @router.get(
        "/categories",
        summary="The categories",
        response_model=list[CategoryView],
        responses=UNCHANGED | listed(),
    )
    async def categories(response: Response, if_none_match: ETag = None) -> Response | list[CategoryView]:
        if fresh(response, if_none_match):
            return unchanged(response)
        return [CategoryView.of(category, service.rulebook) for category in service.rulebook.categories]

    @router.get(
        "/rulebook",
        summary="Name, version and digest",
        response_model=RulebookRef,
        responses=UNCHANGED | listed(404, 422),
    )
    async def rulebook(
        response: Response,
        digest: Annotated[Digest | None, Query(description="Of an earlier rulebook that is held.")] = None,
        if_none_match: ETag = None,
    ) -> Response | RulebookRef:
        if digest is not None:
            return RulebookRef.of((await service.snapshots.get(digest)).rulebook)
        return unchanged(response) if fresh(response, if_none_match) else RulebookRef.of(service.rulebook)

    @router.get("/changes", summary="What the last reload changed")
    async def changes() -> Changes:
        return service.changes

    @router.get("/usage", summary="Which rules came back how often since the start")
    async def usage() -> UsageView:
        return service.usage.view(service.rulebook)

    @router.post(
        "/admin/reload",
        summary="Serve the rules as they are now",
        description="Answers what changed; 409 says why the edited rules cannot be served.",
        response_model=Changes,
        responses=listed(409),
    )
    async def reload() -> Response | Changes:
        await service.reload()
        rejected = service.changes.rejected
        return service.changes if rejected is None else error_response(409, rejected.problem)

    return router


async def consult_by_rest(service: RuleService, content_type: str, body: bytes) -> Response:
    """Answer a question. The server calls this without FastAPI, whose routing costs as much as the search."""
    asked = _asked(content_type, body)
    if isinstance(asked, Response):
        return asked
    try:
        answer = await service.consult(asked, digest=asked.digest)
    except RuleServiceError as error:
        return refusal_of(error)
    return Response(answer.model_dump_json(), media_type="application/json")


def _asked(content_type: str, body: bytes) -> RestConsultRequest | Response:
    """The question in a body, or the refusal of it.

    Read by hand: what FastAPI does around a body costs more than the search.
    """
    if not is_json(content_type):
        return error_response(415, "the body must be JSON: send `Content-Type: application/json`")
    try:
        return RestConsultRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False)
        if found[0]["type"] == "json_invalid":
            return error_response(400, "the body is not JSON")
        return error_response(422, explain(found, RestConsultRequest))


def is_json(content_type: str) -> bool:
    """Whether a Content-Type header names JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def refusal_of(error: Exception) -> Response:
    """The answer to a question that the service cannot answer."""
    if isinstance(error, ConsultError):
        return error_response(404 if isinstance(error, UnknownDigestError) else 422, str(error))
    return error_response(503, str(error), {"Retry-After": "1" if isinstance(error, NotReadyError) else "10"})


def add_error_answers(app: FastAPI) -> None:
    """Errors as `{"detail": one sentence}`, without the caller's text in them."""

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(422, explain(error.errors()))

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        return error_response(error.status_code, str(error.detail), dict(error.headers or {}))

    app.add_exception_handler(StarletteHTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(RuleServiceError, lambda _, error: refusal_of(error))
