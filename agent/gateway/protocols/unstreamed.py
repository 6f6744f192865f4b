"""Unstreamed replies, in either API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agent.errors import RulesError
from agent.gateway.exchange import Exchange
from agent.gateway.protocols.dialect import Dialect, Recorder, reply_without_rules
from agent.gateway.wire import RawHeaders, ReplyHead, ReplyParts, Upstream, UpstreamError, returned_headers

if TYPE_CHECKING:
    import httpx2

_REFUSALS = frozenset({400, 404, 422, 501})
"""Statuses with which upstreams refuse tools, forbidden tools, or items that they did not store."""
_MAX_REPLY_BYTES = 64 * 1024 * 1024


@asynccontextmanager
async def ask(exchange: Exchange, upstream: Upstream, dialect: Dialect) -> AsyncIterator[httpx2.Response]:
    """Sends the next request, and yields the open reply.

    If the upstream refuses the request, which may be due to what the gateway added, a request with fewer
    additions follows.

    Raises:
        UpstreamError: if the upstream sends no reply, or breaks it off inside the block.
    """
    request, refusal = exchange.request, 0
    bodies = exchange.next_bodies()
    for body in bodies:
        async with upstream.send("POST", dialect.path, request.headers, body.data, request.query) as response:
            if response.status_code in _REFUSALS and body is not bodies[-1]:
                refusal = response.status_code
                await read_body(response)
                continue
            if not body.has_offer and response.status_code == 200:
                exchange.withdraw_offer(refusal)
            elif not body.has_bias and response.status_code == 200:
                exchange.withdraw_bias(f"http_{refusal}")
            yield response
            return


async def complete(exchange: Exchange, upstream: Upstream, dialect: Dialect, record: Recorder) -> ReplyParts:
    """Yields an unstreamed reply. Its bytes are the upstream's unless the model consulted."""
    while True:
        async with ask(exchange, upstream, dialect) as response:
            body = await read_body(response)
            status, headers = response.status_code, returned_headers(response.headers.raw)
        parts = await settle(exchange, dialect, status, headers, body, record)
        if parts is not None:
            for part in parts:
                yield part
            return


async def settle(
    exchange: Exchange,
    dialect: Dialect,
    status: int,
    headers: RawHeaders,
    body: bytes,
    record: Recorder,
) -> list[ReplyHead | bytes] | None:
    """Processes a complete reply of the upstream.

    Returns:
        The parts that the caller gets; None if the model only consulted, so that it must be asked again.
    """
    reply = dialect.parse_reply(body) if status == 200 else None
    if reply is None:
        exchange.upstream_failed(f"http_{status}", f"the upstream answered {status} without a model reply")
        record(exchange, "error", None)
        head = ReplyHead(status, exchange.headers(final=True), headers)
        return [head.with_length_of(body), body]
    try:
        visible = await exchange.take(reply)
    except RulesError as error:
        exchange.rules_failed(error)
        return reply_without_rules(dialect, exchange, record)
    if visible is None:
        return None
    record(exchange, "answer", None)
    body = dialect.render(exchange, reply, visible) or body
    head = ReplyHead(status, exchange.headers(final=True), headers)
    return [head.with_length_of(body), body]


async def read_body(response: httpx2.Response) -> bytes:
    """Reads a whole reply.

    Raises:
        UpstreamError: if it is longer than 64 MiB.
    """
    parts, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > _MAX_REPLY_BYTES:
            raise UpstreamError(
                502, "reply_too_long", f"the upstream's reply is longer than {_MAX_REPLY_BYTES} bytes"
            )
        parts.append(piece)
    return b"".join(parts)
