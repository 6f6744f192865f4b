"""The gateway's ASGI app: /v1/chat/completions, /v1/responses, other /v1 routes, /healthz, /metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from agent.episode import Api, DailyLog, EpisodeLog, Message, StopReason
from agent.errors import GatewayError, LogError, RulesError
from agent.gateway.episode_log import to_episode
from agent.gateway.exchange import (
    ChatConversation,
    ConsultationExecutor,
    Conversation,
    Exchange,
    MixedCallStore,
    MixedItemStore,
    ResponsesConversation,
)
from agent.gateway.idempotency import Attempt, RepeatedRequests
from agent.gateway.metrics import CONTENT_TYPE, GatewayMetrics
from agent.gateway.protocols import (
    ChatDialect,
    Dialect,
    ResponsesDialect,
    StreamedChat,
    StreamedResponse,
    complete,
    reply_without_rules,
)
from agent.gateway.rule_offer import TURNED_OFF, RuleOffer
from agent.gateway.settings import Settings, is_loopback
from agent.gateway.wire import (
    METHODS,
    CallerRequest,
    HostCheck,
    ReplyParts,
    StreamingReply,
    Upstream,
    UpstreamError,
    error_reply,
    forward,
    forwarded_headers,
    is_from_web_page,
    path_below_v1,
    route_label,
    tool_names,
)
from agent.tools import RulesClient, ToolOffer

_DIALECTS: dict[Api, Dialect] = {"chat": ChatDialect(), "responses": ResponsesDialect()}
_CONVERSATIONS: dict[Api, type[Conversation]] = {
    "chat": ChatConversation,
    "responses": ResponsesConversation,
}


class Gateway:
    """State that all requests share. Serve `app` with any ASGI server.

    Args:
        settings: the settings.
        rules: client of the rule service, not yet entered; None turns the rules off.
    """

    def __init__(self, settings: Settings, rules: RulesClient | None) -> None:
        self.settings = settings
        self.metrics = GatewayMetrics()
        self.mixed_calls = MixedCallStore()
        self.mixed_items = MixedItemStore()
        self.repeated_requests = RepeatedRequests(settings)
        self.upstream = Upstream(settings)
        self.rules = RuleOffer(rules)
        self.metrics.rules_off.set(rules is None)
        self._log = _open_log(settings)
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/{path:path}", self._pass_through, methods=METHODS),
            Route("/healthz", self._health),
            Route("/metrics", self._show_metrics),
        ]
        handlers: dict[Any, Any] = {404: _unknown_path, 405: _wrong_method}
        starlette = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        self.app: ASGIApp = HostCheck(starlette, settings)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.upstream, self.rules:
            yield
        if self._log:
            self._log.close()

    async def _chat(self, request: Request) -> StreamingReply:
        return await self._handle(request, "chat")

    async def _responses(self, request: Request) -> StreamingReply:
        return await self._handle(request, "responses")

    async def _handle(self, request: Request, api: Api) -> StreamingReply:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A web page can send any other type to this machine without a preflight request.
        if content_type != "application/json":
            message = f"the content type is {content_type or 'missing'}: send application/json"
            return _refuse(415, message, "bad_content_type")
        raw = await self._read(request)
        if raw is None:
            return self._too_large()
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            return _refuse(400, f"the request is not valid JSON: {error}", "bad_json")
        if not isinstance(body, dict):
            return _refuse(400, "the request is not a JSON object", "bad_json")
        headers = forwarded_headers(request.headers.raw)
        return StreamingReply(self._answer(CallerRequest(raw, body, headers, request.url.query), api))

    async def _answer(self, request: CallerRequest, api: Api) -> ReplyParts:
        """Yields the reply to a valid request, or an error if the rules are required but not available."""
        self.metrics.requests.inc()
        offer, reason, error = await self._offer(_CONVERSATIONS[api].reason_not_offered(request.body))
        if offer is not None and offer.name in tool_names(request.body.get("tools")):
            message = f"the request has a tool named {offer.name}, which the gateway reserves: rename yours"
            async for part in error_reply(400, message, "reserved_tool_name"):
                yield part
            return
        if offer is None:
            self.metrics.not_offered.inc()
        exchange = self._exchange(request, api, offer, reason)
        if error is not None:
            exchange.rules_failed(error)
        strict = self.settings.on_rules_error != "answer"
        if offer is None and strict and request.body.get("tool_choice") != "none" and error is None:
            exchange.recorded = True
            message = (
                f"the rule tool cannot be offered with this request ({reason}), "
                f"and this gateway runs with --on-rules-error {self.settings.on_rules_error}"
            )
            async for part in error_reply(400, message, "rules_not_offered", exchange.headers(final=True)):
                yield part
            return
        if error is not None and strict:
            for ready in reply_without_rules(_DIALECTS[api], exchange, self._record):
                yield ready
            return
        async with aclosing(self._attempt(exchange, api)) as parts:
            async for part in parts:
                yield part

    async def _attempt(self, exchange: Exchange, api: Api) -> ReplyParts:
        """Yields the reply of one attempt, and keeps the attempt's results if it fails."""
        attempt, earlier = await self.repeated_requests.begin(exchange, api)
        try:
            parts = self._begin(exchange, api) if earlier is None else self._resume(exchange, earlier, api)
            async with aclosing(parts):
                async for part in parts:
                    attempt.add(part)
                    yield part
        except UpstreamError as error:
            exchange.upstream_failed(error.type, str(error))
            self._record(exchange, "error", None)
            headers = exchange.headers(final=True)
            async for part in error_reply(error.status, str(error), error.type, headers):
                attempt.add(part)
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            if not exchange.recorded:
                self.metrics.abandoned.inc()
                self._record(exchange, "error", None)
            attempt.delivered = False
            raise
        finally:
            self.repeated_requests.end(attempt)

    async def _resume(self, exchange: Exchange, earlier: Attempt, api: Api) -> ReplyParts:
        """Yields the reply to a repeated request."""
        self.metrics.coalesced.inc()
        if earlier.delivered:
            exchange.recorded = True
            for part in earlier.reply:
                yield part
            return
        await exchange.resume_from(earlier.exchange)
        async with aclosing(self._begin(exchange, api)) as parts:
            async for part in parts:
                yield part

    async def _begin(self, exchange: Exchange, api: Api) -> ReplyParts:
        """Yields the reply after a hint was added."""
        try:
            await exchange.add_hint()
        except RulesError:
            for ready in reply_without_rules(_DIALECTS[api], exchange, self._record):
                yield ready
            return
        async with aclosing(self._reply(exchange, api)) as parts:
            async for part in parts:
                yield part

    def _reply(self, exchange: Exchange, api: Api) -> ReplyParts:
        if not exchange.request.streams:
            return complete(exchange, self.upstream, _DIALECTS[api], self._record)
        if api == "responses":
            return StreamedResponse(exchange, self.upstream, self._record).parts()
        return StreamedChat(exchange, self.upstream, self._record).parts()

    def _exchange(
        self, request: CallerRequest, api: Api, offer: ToolOffer | None, reason: str | None
    ) -> Exchange:
        settings = self.settings
        conversation = (
            ChatConversation(
                request, offer, self.mixed_calls, hold=settings.hold, logit_bias=settings.logit_bias
            )
            if api == "chat"
            else ResponsesConversation(request, offer, self.mixed_items, hold=settings.hold)
        )
        loop = ConsultationExecutor(offer, self.rules.client, settings, self.metrics)
        return Exchange(conversation, loop, reason, settings, self.metrics)

    async def _offer(self, reason: str | None) -> tuple[ToolOffer | None, str | None, RulesError | None]:
        """Returns the tool; or why it is not offered, and the rule service's error if that is the reason."""
        if self.rules.client is None:
            return None, TURNED_OFF, None
        if reason is not None:
            return None, reason, None
        try:
            return await self.rules.offer(), None, None
        except RulesError as error:
            return None, "the rules cannot be consulted", error

    def _record(self, exchange: Exchange, stop_reason: StopReason, refusal: Message | None) -> None:
        if exchange.recorded:
            return
        exchange.recorded = True
        if stop_reason == "answer" and (cause := exchange.rules_error) is not None:
            self.metrics.answers_without_rules.labels(cause).inc()
            reason = exchange.error.message if exchange.error else ""
            _warn(f"answered without the safety rules ({cause}): {reason}")
        if self._log is None:
            return
        try:
            self._log.append(to_episode(exchange, stop_reason, refusal))
        except (LogError, ValueError) as error:
            # A full disk, or a reply that makes no valid episode, must not fail the request.
            reason = str(error).partition("\n")[0]
            _warn(f"cannot log a conversation: {reason}")

    async def _pass_through(self, request: Request) -> StreamingReply:
        """Forwards a request to a route that the gateway does not handle."""
        path = path_below_v1(request)
        if path is None:
            return await _unknown_path(request)
        if is_from_web_page(request) and not self.settings.allow_remote:
            message = "a web page of another origin must not use this gateway: start it with --allow-remote"
            return _refuse(403, message, "foreign_page")
        route = route_label(path)
        policy = self.settings.on_rules_error
        if policy != "answer" and route != "models":
            message = (
                f"the rule tool cannot be offered on /v1{path[:80]}, "
                f"and this gateway runs with --on-rules-error {policy}"
            )
            return _refuse(400, message, "rules_not_offered")
        raw = await self._read(request)
        if raw is None:
            return self._too_large()
        self.metrics.passed_through.labels(route).inc()
        headers = forwarded_headers(request.headers.raw)
        caller = CallerRequest(raw, {}, headers).caller
        own = {"x-ascl-consulted": "not-offered", "x-ascl-not-offered": "the route has no rule tool"}
        return StreamingReply(
            forward(
                self.upstream,
                request.method,
                self.mixed_items.upstream_path(caller, path),
                headers,
                raw,
                request.url.query,
                own if route != "models" else {},
            )
        )

    def _too_large(self) -> StreamingReply:
        limit = self.settings.body_limit
        return _refuse(413, f"the request is longer than {limit} bytes", "request_too_large")

    async def _read(self, request: Request) -> bytes | None:
        """Reads the body; returns None if it is longer than the limit."""
        parts, size = [], 0
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > self.settings.body_limit:
                    return None
                parts.append(piece)
        except ClientDisconnect:
            return None
        return b"".join(parts)

    async def _health(self, request: Request) -> JSONResponse:
        if self.rules.client is None:
            return JSONResponse({"rules": "off"})
        try:
            offer = await self.rules.check()
        except RulesError as error:
            return JSONResponse({"rules": "unreachable", "detail": str(error)})
        return JSONResponse({"rules": "ok", "rulebook": offer.digest})

    async def _show_metrics(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(self.metrics.text(), media_type=CONTENT_TYPE)


def _open_log(settings: Settings) -> EpisodeLog | DailyLog | None:
    if settings.log is None:
        return None
    days = settings.log_keep_days
    return EpisodeLog(settings.log) if days is None else DailyLog(settings.log, days)


def _warn(message: str) -> None:
    print(f"ascl-agent: {message}", file=sys.stderr, flush=True)


def _refuse(status: int, message: str, type: str) -> StreamingReply:
    return StreamingReply(error_reply(status, message, type))


async def _unknown_path(request: Request, error: Exception | None = None) -> StreamingReply:
    path = request.url.path[:80]
    return _refuse(404, f"the gateway has no route {path}: its routes begin with /v1/", "unknown_path")


async def _wrong_method(request: Request, error: Exception) -> StreamingReply:
    message = f"{request.url.path[:80]} does not accept {request.method}"
    return _refuse(405, message, "wrong_method")


def serve(
    settings: Settings, rules: RulesClient | None, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serves until interrupted; calls `on_ready` with the base URL for applications.

    Raises:
        GatewayError: if other machines could connect and `allow_remote` is off, or the address is in use.
    """
    import uvicorn

    if host.startswith("[") and host.endswith("]"):  # as in a URL
        host = host[1:-1]
    if not is_loopback(host) and not settings.allow_remote:
        raise GatewayError(
            f"--host {host} would accept requests of other machines without authentication: "
            "use 127.0.0.1, or pass --allow-remote",
            type="remote_refused",
            setup=True,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise GatewayError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port",
            type="address",
            setup=True,
        ) from error
    with listener:
        gateway = Gateway(settings, rules)
        config = uvicorn.Config(
            gateway.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=settings.grace,  # type: ignore[arg-type]
        )
        display_host = f"[{host}]" if ":" in host else host
        on_ready(f"http://{display_host}:{listener.getsockname()[1]}/v1")
        uvicorn.Server(config).run(sockets=[listener])
