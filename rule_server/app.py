"""One ASGI app: REST, MCP at /mcp, the page and the probes."""

from __future__ import annotations

import importlib.metadata
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from mcp.server.transport_security import TransportSecuritySettings

from rule_server.errors import StartError
from rule_server.header_space import HeaderSpace
from rule_server.mcp_app import create_mcp
from rule_server.middleware import HostCheck, RequestBodyLimitMiddleware
from rule_server.page import create_page
from rule_server.rest import add_error_answers, create_router
from rule_server.service import RuleService
from rule_server.settings import Settings


def version() -> str:
    """Of the distribution; `0` in a checkout that was never installed."""
    try:
        return importlib.metadata.version("ascl")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def create_app(service: RuleService) -> FastAPI:
    """The app over a service. It may be run once."""
    settings = service.settings
    mcp = create_mcp(service, version())
    # HostCheck looks at Host and Origin for every route; a second check here could only disagree with it.
    transport = mcp.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=settings.max_body,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running(), mcp.session_manager.run():
            yield

    # FastAPI's own pages of documentation load their scripts from elsewhere.
    app = FastAPI(title="ASCL rules", version=version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_answers(app)
    app.include_router(create_router(service))
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
            "threshold": {"value": service.threshold.value, "note": service.threshold.note},
        }
        return JSONResponse(status, 200 if service.ready else 503)

    # Without sessions there is nothing to stream or to end; a GET would hold its connection for ever.
    others = ["GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"]

    @app.api_route("/mcp", methods=others, include_in_schema=False)
    async def only_post() -> Response:
        return JSONResponse({"detail": "MCP here takes POST only"}, 405, {"Allow": "POST"})

    # Last, and at the root: mounted at /mcp it would redirect, and hide its own metadata route.
    app.mount("/", transport)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(HeaderSpace)
    return app


def check_exposure(settings: Settings) -> None:
    """Raises StartError when the service would be open to the network without anybody having said so."""
    if not settings.loopback and not settings.allow_anonymous:
        raise StartError(
            f"{settings.host} can be reached from other machines, and this version cannot ask callers who "
            "they are (authentication comes later): serve on 127.0.0.1, or accept all by --allow-anonymous"
        )


def run(service: RuleService) -> None:
    """Serve until interrupted. Raises StartError when the address cannot be had."""
    settings = service.settings
    check_exposure(settings)
    config = uvicorn.Config(
        create_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.concurrency,
        timeout_graceful_shutdown=5,
    )
    with _listen(settings) as listening:
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
