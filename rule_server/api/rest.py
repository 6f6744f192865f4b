"""REST interface under /v1: consultations, and read access to the rulebook and its usage."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from rule_server.api.error_responses import documented_errors, error_response
from rule_server.errors import ConsultError, NotReadyError, RuleServiceError, UnknownDigestError
from rule_server.schemas import (
    CategoryView,
    ConsultResponse,
    Digest,
    NearestResponse,
    RestConsultRequest,
    RulebookRef,
    RuleView,
    explain_errors,
)
from rule_server.service import Changes, UsageView
from rule_server.service.rule_service import RuleService

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "If-None-Match names the current rulebook."}
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": RestConsultRequest.model_json_schema()}},
    }
}


async def get_service(request: Request) -> RuleService:
    """Returns the service of the app. Asynchronous, because FastAPI runs a plain function in a thread."""
    service: RuleService = request.app.state.service
    return service


Service = Annotated[RuleService, Depends(get_service)]
ETag = Annotated[str | None, Header(alias="if-none-match")]
router = APIRouter(prefix="/v1", tags=["rules"], responses=documented_errors())


def not_modified(service: RuleService, response: Response, etags: str | None) -> Response | None:
    """Sets the ETag of the response. Returns a 304 if the caller has the current rulebook, else None."""
    current = f'"{service.rulebook.digest}"'
    response.headers["ETag"] = current
    if etags is None or current not in [tag.strip().removeprefix("W/") for tag in etags.split(",")]:
        return None
    return Response(status_code=304, headers={"ETag": current})


@router.post(
    "/consult",
    name="consult",
    summary="The rules that apply to a situation",
    response_model=ConsultResponse,
    responses=documented_errors(404, 415, 422),
    openapi_extra=BODY,
)
async def consult(request: Request, service: Service) -> Response:
    return await consult_by_rest(service, request.headers.get("content-type", ""), await request.body())


@router.post(
    "/nearest",
    name="nearest",
    summary="The nearest rules and their scores, including those below the threshold",
    description="Explains why a rule was or was not returned. `top_k` defaults to 10.",
    response_model=NearestResponse,
    responses=documented_errors(404, 415, 422),
    openapi_extra=BODY,
)
async def find_nearest(request: Request, service: Service) -> Response:
    body = parse_body(request.headers.get("content-type", ""), await request.body())
    if isinstance(body, Response):
        return body
    response = await service.nearest(body, digest=body.digest)
    return Response(response.model_dump_json(), media_type="application/json")


@router.get(
    "/rules",
    name="rules",
    summary="Every active rule",
    response_model=list[RuleView],
    responses=NOT_MODIFIED | documented_errors(),
)
async def list_rules(
    service: Service, response: Response, if_none_match: ETag = None
) -> Response | list[RuleView]:
    return not_modified(service, response, if_none_match) or [
        RuleView.of(rule) for rule in service.rulebook.served.values()
    ]


@router.get(
    "/rules/{id}",
    name="rule",
    summary="One rule",
    response_model=RuleView,
    responses=NOT_MODIFIED | documented_errors(404),
)
async def get_rule(
    id: str, service: Service, response: Response, if_none_match: ETag = None
) -> Response | RuleView:
    rule = service.rulebook.served.get(id)
    if rule is None:
        raise HTTPException(404, f"the rulebook has no rule {id[:64]!r}: GET /v1/rules lists them")
    return not_modified(service, response, if_none_match) or RuleView.of(rule)


@router.get(
    "/categories",
    name="categories",
    summary="The categories",
    response_model=list[CategoryView],
    responses=NOT_MODIFIED | documented_errors(),
)
async def list_categories(
    service: Service, response: Response, if_none_match: ETag = None
) -> Response | list[CategoryView]:
    return not_modified(service, response, if_none_match) or [
        CategoryView.of(category, service.rulebook) for category in service.rulebook.categories
    ]


@router.get(
    "/rulebook",
    name="rulebook",
    summary="Name, version and digest",
    response_model=RulebookRef,
    responses=NOT_MODIFIED | documented_errors(404, 422),
)
async def get_rulebook(
    service: Service,
    response: Response,
    digest: Annotated[Digest | None, Query(description="Digest of an earlier, available rulebook.")] = None,
    if_none_match: ETag = None,
) -> Response | RulebookRef:
    if digest is not None:
        return RulebookRef.of((await service.snapshots.get(digest)).rulebook)
    return not_modified(service, response, if_none_match) or RulebookRef.of(service.rulebook)


@router.get("/changes", name="changes", summary="Result of the last reload")
async def get_changes(service: Service) -> Changes:
    return service.changes


@router.get("/usage", name="usage", summary="How often each rule was returned since the start")
async def get_usage(service: Service) -> UsageView:
    return service.usage.view(service.rulebook)


@router.post(
    "/admin/reload",
    name="reload",
    summary="Reload the rules folder",
    description="Returns what changed. A 409 says why the edited rules cannot be served.",
    response_model=Changes,
    responses=documented_errors(409),
)
async def reload_rules(service: Service) -> Response | Changes:
    await service.reload()
    rejected = service.changes.rejected
    return service.changes if rejected is None else error_response(409, rejected.problem)


async def consult_by_rest(service: RuleService, content_type: str, body: bytes) -> Response:
    """Answers a consultation. The app calls it without FastAPI, whose routing costs as much as the search."""
    request = parse_body(content_type, body)
    if isinstance(request, Response):
        return request
    try:
        response = await service.consult(request, digest=request.digest)
    except RuleServiceError as error:
        return response_to_error(error)
    return Response(response.model_dump_json(), media_type="application/json")


def parse_body(content_type: str, body: bytes) -> RestConsultRequest | Response:
    """Parses a request body. Returns an error response if it is invalid.

    FastAPI's own body handling would cost more than the search.
    """
    if not is_json(content_type):
        return error_response(415, "the body must be JSON: send `Content-Type: application/json`")
    try:
        return RestConsultRequest.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        if errors[0]["type"] == "json_invalid":
            return error_response(400, "the body is not JSON")
        return error_response(422, explain_errors(errors, RestConsultRequest))


def is_json(content_type: str) -> bool:
    """Returns whether a Content-Type header names JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def response_to_error(error: Exception) -> Response:
    """Maps an exception of the service to an HTTP response."""
    if isinstance(error, ConsultError):
        return error_response(404 if isinstance(error, UnknownDigestError) else 422, str(error))
    return error_response(503, str(error), {"Retry-After": "1" if isinstance(error, NotReadyError) else "10"})


def add_error_handlers(app: FastAPI) -> None:
    """Makes the app return errors as `{"detail": one sentence}` that does not quote the caller's values."""

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(422, explain_errors(error.errors()))

    def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        return error_response(error.status_code, str(error.detail), dict(error.headers or {}))

    app.add_exception_handler(StarletteHTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(RuleServiceError, lambda _, error: response_to_error(error))
