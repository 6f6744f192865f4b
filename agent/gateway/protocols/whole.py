"""Unstreamed replies, in either API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import RulesError
from agent.gateway.exchange import Exchange
from agent.gateway.protocols.dialect import Dialect, Recorder, reply_without_rules
from agent.gateway.wire import RawHeaders, ReplyHead, ReplyParts, Upstream, UpstreamError, returned_headers

if TYPE_CHECKING:
    import httpx2

_MAX_REPLY_BYTES = 64 * 1024 * 1024


async def complete(exchange: Exchange, upstream: Upstream, dialect: Dialect, record: Recorder) -> ReplyParts:
    """Yields an unstreamed reply. Its bytes are the upstream's unless the model consulted."""
    while True:
        request = exchange.request
        async with upstream.send(
            "POST", dialect.path, request.headers, exchange.next_body(), request.query
        ) as response:
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
    """Takes a whole reply of the upstream.

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
