"""The ASGI app: REST, MCP at /mcp, the web page and the probes."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rule_server.api.auth import Authenticator
from rule_server.api.mcp_server import create_mcp, http_endpoint
from rule_server.api.middleware import RequestMiddleware
from rule_server.api.page.routes import create_page
from rule_server.api.probes import create_probes
from rule_server.api.read_timeout import bounded_protocol
from rule_server.api.rest import add_error_handlers, consult_by_rest
from rule_server.api.rest import router as rest_router
from rule_server.errors import StartError
from rule_server.service.rule_service import RuleService
from rule_server.settings import Settings

log = logging.getLogger(__name__)


def version() -> str:
    """Returns the version of the distribution, or `0` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("ascl")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def create_app(service: RuleService) -> ASGIApp:
    """Creates the app of a service. It may run once."""
    settings = service.settings
    mcp = create_mcp(service, version())
    # The middleware checks Host and Origin of every route; a second check here could only contradict it.
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

    # FastAPI's documentation pages are off: they load scripts from other hosts.
    app = FastAPI(title="ASCL rules", version=version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    add_error_handlers(app)
    # The middleware checks the token. The dependency only tells generated clients to send one.
    bearer = [Security(HTTPBearer(auto_error=False))] if auth.required else []
    app.include_router(rest_router, dependencies=bearer)
    app.include_router(create_page())
    app.include_router(create_probes(service, auth))

    async def consult(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")  # the middleware passes the whole body in one message
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        response = await consult_by_rest(service, kind.decode("latin-1"), body)
        await response(scope, receive, send)

    direct = {"/mcp": http_endpoint(mcp.session_manager.handle_request, service), "/v1/consult": consult}
    middleware = RequestMiddleware(app, direct, settings, auth, service.metrics, service.tracing)
    return _allow_origins(middleware, settings) if settings.allowed_origins else middleware


def _allow_origins(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Adds the CORS headers without which a browser hides the response from a page of another origin."""
    return CORSMiddleware(
        app,
        allow_origins=[origin.lower().rstrip("/") for origin in settings.allowed_origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["ETag", "Retry-After", "WWW-Authenticate"],
    )


def check_exposure(settings: Settings) -> None:
    """Checks that only authenticated callers can reach the service from other machines.

    Raises:
        StartError: if the service would accept unauthenticated requests from other machines and
            `allow_anonymous` is off.
    """
    authenticates = settings.tokens_file is not None or settings.oauth_issuer is not None
    if settings.exposed and not authenticates and not settings.allow_anonymous:
        where = f"{settings.host} can be reached from other machines"
        if settings.loopback:
            where += " through the proxy that allowed_hosts or trusted_proxies imply"
        raise StartError(
            f"{where}, and callers are not authenticated: create tokens (`ascl-rules token new NAME`) and "
            "specify their file with --tokens-file, serve on 127.0.0.1, or accept everybody with "
            "--allow-anonymous"
        )


def server_config(service: RuleService) -> uvicorn.Config:
    """Returns the configuration of the HTTP server."""
    settings = service.settings
    return uvicorn.Config(
        create_app(service),
        loop="uvloop",
        http=bounded_protocol(settings.body_timeout + 1),
        ws="none",
        log_config=None,  # `set_up_logs` configures its loggers too
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=5,
    )


def run(service: RuleService) -> None:
    """Serves until interrupted. Raises StartError when the address cannot be used."""
    check_exposure(service.settings)
    config = server_config(service)
    with _listen(service.settings) as server_socket:
        host, port = server_socket.getsockname()[:2]
        where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        gc.collect()
        gc.freeze()  # objects loaded so far live as long as the process: the collector need not scan them
        log.info("serving MCP at %s/mcp, REST at %s/v1, a page at %s/", where, where, where)
        uvicorn.Server(config).run(sockets=[server_socket])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server_socket = socket.socket(family)
    try:
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((settings.host, settings.port))
    except OSError as error:
        server_socket.close()
        raise StartError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}): "
            "stop the other server on it, or name another --port"
        ) from None
    return server_socket
