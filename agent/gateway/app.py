"""The gateway as an ASGI app: /v1/chat/completions, /v1/responses, /v1/models, /healthz, /metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.episode import DailyLog, EpisodeLog, Message, StopReason
from agent.errors import GatewayError, LogError, RulesError
from agent.gateway.episode_log import episode_of
from agent.gateway.exchange import (
    Exchange,
    MixedCallStore,
    MixedItemStore,
    ResponsesExchange,
    responses_reason_not_offered,
)
from agent.gateway.idempotency import Attempt, RepeatedRequests
from agent.gateway.metrics import GatewayMetrics
from agent.gateway.protocols import (
    StreamedChat,
    chat_without_rules,
    complete_chat,
    complete_response,
    stream_response,
)
from agent.gateway.protocols import response_without_rules as refused_response
from agent.gateway.rule_offer import RuleOffer
from agent.gateway.settings import Settings, is_loopback
from agent.gateway.wire import (
    CallerRequest,
    ReplyHead,
    ReplyParts,
    StreamingReply,
    Upstream,
    UpstreamError,
    error_reply,
    forwarded_headers,
    reason_not_offered,
    returned_headers,
    tool_names,
)
from agent.tools import RulesClient, ToolOffer


class Gateway:
    """What all requests share. Use `app` under any ASGI server.

    Args:
        settings: checked.
        rules: the rule service, not yet entered.
    """

    def __init__(self, settings: Settings, rules: RulesClient) -> None:
        self.settings = settings
        self.counters = GatewayMetrics()
        self.half_turns = MixedCallStore()
        self.half_replies = MixedItemStore()
        self.retries = RepeatedRequests(settings)
        self.upstream = Upstream(settings)
        self.rules = RuleOffer(rules)
        self._log = _opened(settings)
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._models),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
        ]
        handlers: dict[Any, Any] = {404: _unknown_path, 405: _wrong_method}
        starlette = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        self.app: ASGIApp = _KnownHost(starlette, settings)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.upstream, self.rules.client:
            yield
            await self.rules.close()
        if self._log:
            self._log.close()

    async def _chat(self, request: Request) -> StreamingReply:
        return await self._taken(request, responses=False)

    async def _responses(self, request: Request) -> StreamingReply:
        return await self._taken(request, responses=True)

    async def _taken(self, request: Request, *, responses: bool) -> StreamingReply:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Anything but JSON is what a web page may send to this machine without being asked about it.
        if kind != "application/json":
            return _refused(
                415, f"the content type is {kind or 'missing'}: send application/json", "bad_content_type"
            )
        raw = await self._read(request)
        if raw is None:
            limit = self.settings.body_limit
            return _refused(413, f"the request is longer than {limit} bytes", "request_too_large")
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            return _refused(400, f"the request is not valid JSON: {error}", "bad_json")
        if not isinstance(body, dict):
            return _refused(400, "the request is no JSON object", "bad_json")
        asked = CallerRequest(raw, body, forwarded_headers(request.headers.items()), request.url.query)
        return StreamingReply(self._answered(asked, responses))

    async def _answered(self, asked: CallerRequest, responses: bool) -> ReplyParts:
        self.counters.requests += 1
        offer, why, error = await self._offer(
            (responses_reason_not_offered if responses else reason_not_offered)(asked.body)
        )
        if offer is not None and offer.name in tool_names(asked.body.get("tools")):
            message = (
                f"a tool of the request is called {offer.name}: that name is the gateway's; rename yours"
            )
            async for part in error_reply(400, message, "reserved_tool_name"):
                yield part
            return
        self.counters.not_offered += offer is None
        exchange = (ResponsesExchange if responses else Exchange)(
            asked, offer, why, self.rules.client, self.settings, self.half_turns, self.counters
        )
        if isinstance(exchange, ResponsesExchange):
            exchange.begin(self.half_replies)
        if error is not None:
            exchange.rules_failed(error)
        strict = self.settings.on_rules_error != "answer"
        if offer is None and strict and asked.body.get("tool_choice") != "none" and error is None:
            exchange.recorded = True
            message = (
                f"the rules cannot be offered with this request ({why}), and this gateway insists on them"
            )
            async for part in error_reply(400, message, "rules_not_offered", exchange.headers(final=True)):
                yield part
            return
        if error is not None and strict:
            for ready in (refused_response if responses else chat_without_rules)(exchange, self._record):
                yield ready
            return
        attempt, earlier = await self.retries.begin(exchange, "responses" if responses else "chat")
        try:
            parts = self._again(exchange, earlier) if earlier is not None else self._parts(exchange)
            async with aclosing(parts):
                async for part in parts:
                    attempt.note(part)
                    yield part
        except UpstreamError as broken:
            exchange.upstream_failed(broken.type, str(broken))
            self._record(exchange, None, "error")
            said = exchange.headers(final=True)
            async for part in error_reply(broken.status, str(broken), broken.type, said):
                attempt.note(part)
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            if not exchange.recorded:
                self.counters.abandoned += 1
                self._record(exchange, None, "error")
            attempt.delivered = False
            raise
        finally:
            self.retries.end(attempt)

    async def _again(self, exchange: Exchange, earlier: Attempt) -> ReplyParts:
        """What answers a request that was sent before."""
        self.counters.coalesced += 1
        if earlier.delivered:
            exchange.recorded = True
            for part in earlier.reply:
                yield part
            return
        await exchange.go_on_from(earlier.exchange)
        async with aclosing(self._parts(exchange)) as parts:
            async for part in parts:
                yield part

    def _parts(self, exchange: Exchange) -> ReplyParts:
        """What answers an exchange: whole or streamed, in the form of either API."""
        if isinstance(exchange, ResponsesExchange):
            form = stream_response if exchange.asked.streams else complete_response
            return form(exchange, self.upstream, self._record)
        if exchange.asked.streams:
            return StreamedChat(exchange, self.upstream, self._record).parts()
        return complete_chat(exchange, self.upstream, self._record)

    async def _offer(self, why: str | None) -> tuple[ToolOffer | None, str | None, RulesError | None]:
        """The tool to offer; or why it is not offered, and the rule service's fault if it is one."""
        if why is not None:
            return None, why, None
        try:
            return await self.rules.offer(), None, None
        except RulesError as error:
            return None, "the rules cannot be consulted", error

    def _record(self, exchange: Exchange, reply: Message | None, stop_reason: StopReason) -> None:
        if exchange.recorded:
            return
        exchange.recorded = True
        if self._log is not None:
            try:
                self._log.append(episode_of(exchange, reply, stop_reason))
            except (LogError, ValueError) as error:
                # Neither a full disk nor a reply that makes no episode may take the application down.
                first = str(error).partition("\n")[0]
                print(f"ascl-agent: the log: {first}", file=sys.stderr, flush=True)

    async def _models(self, request: Request) -> StreamingReply:
        name: str = request.path_params.get("name", "")
        if any(part in (".", "..") for part in name.split("/")):  # would lead out of the upstream's /models
            return await _unknown_path(request)
        path = f"/models/{quote(name, safe='/:@')}" if name else "/models"
        return StreamingReply(
            self._passed_on(path, forwarded_headers(request.headers.items()), request.url.query)
        )

    async def _passed_on(self, path: str, headers: dict[str, str], query: str) -> ReplyParts:
        try:
            async with self.upstream.ask("GET", path, headers, query=query) as response:
                yield ReplyHead(response.status_code, returned_headers(response.headers.items()))
                async for piece in response.aiter_bytes():
                    yield piece
        except UpstreamError as error:
            async for part in error_reply(error.status, str(error), error.type):
                yield part

    async def _read(self, request: Request) -> bytes | None:
        """The body; None when it is longer than the limit."""
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
        try:
            offer = await self.rules.checked()
        except RulesError as error:
            return JSONResponse({"rules": "unreachable", "detail": str(error)})
        return JSONResponse({"rules": "ok", "rulebook": offer.digest})

    async def _metrics(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(self.counters.text(), media_type="text/plain; version=0.0.4")


def _opened(settings: Settings) -> EpisodeLog | DailyLog | None:
    if settings.log is None:
        return None
    days = settings.log_keep_days
    return EpisodeLog(settings.log) if days is None else DailyLog(settings.log, days)


class _KnownHost:
    """Refuses requests that a foreign web page sends to a gateway on this machine under a name of its own."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._any = settings.allow_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._any:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name):
                message = f"the host {host[:80]!r} is not this machine: start the gateway with --allow-remote"
                await StreamingReply(error_reply(421, message, "foreign_host"))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refused(status: int, message: str, type: str) -> StreamingReply:
    return StreamingReply(error_reply(status, message, type))


async def _unknown_path(request: Request, error: Exception | None = None) -> StreamingReply:
    served = "/v1/chat/completions, /v1/responses and /v1/models"
    return _refused(404, f"the gateway has no {request.url.path[:80]}: it serves {served}", "unknown_path")


async def _wrong_method(request: Request, error: Exception) -> StreamingReply:
    return _refused(405, f"{request.method} is not for {request.url.path[:80]}", "wrong_method")


def serve(
    settings: Settings, rules: RulesClient, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serve until interrupted; `on_ready` is told the base URL that applications use.

    Raises:
        GatewayError: when the address is not this machine's alone and that was not asked for, or is taken.
    """
    import uvicorn

    from agent.gateway.app import Gateway

    if not is_loopback(host) and not settings.allow_remote:
        raise GatewayError(
            f"--host {host} would let other machines ask with no check of who they are: "
            "use 127.0.0.1, or pass --allow-remote",
            type="remote_refused",
            setup=True,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise GatewayError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port",
            type="address",
            setup=True,
        ) from error
    with listening:
        gateway = Gateway(settings, rules)
        config = uvicorn.Config(
            gateway.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{listening.getsockname()[1]}/v1")
        uvicorn.Server(config).run(sockets=[listening])
