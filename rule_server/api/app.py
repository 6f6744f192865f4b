"""One ASGI app: REST, MCP at /mcp, the page and the probes."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rule_server.api.auth import Authenticator
from rule_server.api.mcp_server import create_mcp
from rule_server.api.middleware import RequestMiddleware
from rule_server.api.page.routes import create_page
from rule_server.api.read_timeout import bounded_protocol
from rule_server.api.rest import add_error_answers, consult_by_rest, create_router
from rule_server.errors import StartError
from rule_server.observability.metrics import CONTENT_TYPE
from rule_server.service.rule_service import RuleService
from rule_server.settings import Settings

log = logging.getLogger(__name__)


def version() -> str:
    """Of the distribution; `0` in a checkout that was never installed."""
    try:
        return importlib.metadata.version("ascl")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def create_app(service: RuleService) -> ASGIApp:
    """The app over a service. It may be run once."""
    settings = service.settings
    mcp = create_mcp(service, version())
    # The gate looks at Host and Origin of every route; a second check here could only disagree with it.
    mcp.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=settings.max_body,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    auth = Authenticator(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running(), mcp.session_manager.run():
            yield

    # FastAPI's own pages of documentation load their scripts from elsewhere.
    app = FastAPI(title="ASCL rules", version=version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_answers(app)
    app.include_router(create_router(service, tokens=auth.required))
    app.include_router(create_page())

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        status = {
            "ready": service.ready,
            "digest": service.rulebook.digest,
            "reload_error": service.reload_error,
            "tokens_error": auth.tokens.problem if auth.tokens is not None else None,
            "threshold": {"value": service.threshold.value, "note": service.threshold.note},
        }
        return JSONResponse(status, 200 if service.ready else 503)

    if auth.metadata is not None:

        @app.get(auth.metadata_path, include_in_schema=False)
        async def protected_resource() -> JSONResponse:
            return JSONResponse(auth.metadata)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    async def consult(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")  # the gate hands it over whole
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        answer = await consult_by_rest(service, kind.decode("latin-1"), body)
        await answer(scope, receive, send)

    direct = {"/mcp": mcp.session_manager.handle_request, "/v1/consult": consult}
    gate = RequestMiddleware(app, direct, settings, auth, service.metrics, service.telemetry)
    if not settings.allowed_origins:
        return gate
    # A browser hides the answer from a page of another origin without these headers; it asks beforehand.
    return CORSMiddleware(
        gate,
        allow_origins=[origin.lower().rstrip("/") for origin in settings.allowed_origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["ETag", "Retry-After", "WWW-Authenticate"],
    )


def check_exposure(settings: Settings) -> None:
    """Raises StartError when the service would be open to the network without anybody having said so."""
    asks = settings.tokens_file is not None or settings.oauth_issuer is not None
    if settings.exposed and not asks and not settings.allow_anonymous:
        where = f"{settings.host} can be reached from other machines"
        if settings.loopback:
            where += " through the proxy that allowed_hosts or trusted_proxies speak of"
        raise StartError(
            f"{where}, and no caller would be asked who it is: make tokens (`ascl-rules token new NAME`) and "
            "name their file by --tokens-file, serve on 127.0.0.1, or accept everybody by --allow-anonymous"
        )


def server_config(service: RuleService) -> uvicorn.Config:
    """How the app is served over HTTP."""
    settings = service.settings
    return uvicorn.Config(
        create_app(service),
        loop="uvloop",
        http=bounded_protocol(settings.body_timeout + 1),
        ws="none",
        log_config=None,  # its loggers are set up with ours
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=5,
    )


def run(service: RuleService) -> None:
    """Serve until interrupted. Raises StartError when the address cannot be had."""
    check_exposure(service.settings)
    config = server_config(service)
    with _listen(service.settings) as listening:
        host, port = listening.getsockname()[:2]
        where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        gc.collect()
        gc.freeze()  # what is loaded by now stays: the collector need not walk through it again and again
        log.info("serving MCP at %s/mcp, REST at %s/v1, a page at %s/", where, where, where)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise StartError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}): "
            "stop what listens there, or name another --port"
        ) from None
    return listening
