"""The model's endpoint: Chat Completions or the Responses API, with one retry loop of ours.

The SDK's own retries are off: they would multiply with ours and could not be counted. What a request holds
and how a reply is read differs between the APIs: `chat_api.py`, `responses_api.py`.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.endpoint.chat_completions import ChatApi
from agent.endpoint.concurrency import ConcurrencyLimiter
from agent.endpoint.quirks import REJECTS_MALFORMED_ARGUMENTS, Quirks, quirks_of
from agent.endpoint.responses import ResponsesApi, StreamedResponse
from agent.endpoint.streaming import BrokenStreamError, DeltaListener, FailedReplyError, StreamedReply
from agent.endpoint.tool_calls import has_malformed_arguments, truncate, with_readable_arguments
from agent.episode import Api, Message, to_request_message
from agent.errors import EndpointError
from agent.urls import bearer, public_address, without_secrets

T = TypeVar("T")

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_PASSING = frozenset({"server_error", "rate_limit_exceeded", "overloaded", "server_is_overloaded"})
_SETUP = frozenset({401, 403, 404})
_LONGEST_REPLY = 16 * 1024 * 1024  # characters of one message; a log line must hold a whole episode


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a failed request is tried again; times in seconds."""

    attempts: int = 5
    busy_attempts: int = 30
    """Attempts when the endpoint says that it is too much (429), within the same wait budget."""
    first_wait: float = 0.5
    longest_wait: float = 20.0
    wait_budget: float = 120.0


@dataclass(frozen=True)
class Reply:
    """One answer of the model, as received."""

    message: Message
    finish_reason: str | None
    usage: dict[str, Any] | None
    model: str | None
    attempts: int
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: Any | None = None
    effective: dict[str, Any] | None = None
    """The sampling settings that the endpoint says it used."""


def public_url_of(base_url: str) -> str:
    """An endpoint's address as it is shown and recorded.

    Raises:
        EndpointError: when it is none.
    """
    try:
        return public_address(base_url)
    except ValueError as error:
        raise EndpointError(
            f"the base URL {without_secrets(base_url)!r} cannot be asked ({error}): give one such as http://127.0.0.1:8810/v1",
            type="bad_address",
            setup=True,
        ) from None


def key_header(api_key: str | None) -> dict[str, str]:
    """The header with an endpoint's key.

    Raises:
        EndpointError: when no header can hold it.
    """
    try:
        return bearer(api_key)
    except ValueError as error:
        raise EndpointError(
            f"the endpoint's key cannot be sent: {error}; set OPENAI_API_KEY anew", type="bad_key", setup=True
        ) from None


class Endpoint:
    """A model behind `base_url` (which usually ends in /v1). Use as an async context manager.

    Args:
        base_url: http(s); credentials in it are never recorded.
        model: its name there.
        api_key: sent as a bearer token.
        timeout: seconds that one request may wait for its reply.
        idle_timeout: seconds of silence after which a stream that has begun is given up.
        quirks: the endpoint's habits; None for those known by its address.
        api: which API is spoken; messages and replies look the same to the caller.
        retry: how failed requests are tried again.

    Raises:
        EndpointError: when the address or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 300.0,
        idle_timeout: float = 120.0,
        quirks: Quirks | None = None,
        api: Api = "chat",
        retry: RetryPolicy = RetryPolicy(),
    ) -> None:
        self.public_url = public_url_of(base_url)
        key_header(api_key)
        self.base_url = base_url
        self.model = model
        self._api_key = (api_key or "").strip()
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self.quirks = quirks or quirks_of(base_url)
        self.api: Api = api
        self._api = (ResponsesApi if api == "responses" else ChatApi)(model, self.quirks)
        self.gate = ConcurrencyLimiter()
        self._retry = retry
        self._client: Any = None
        self._wraps_malformed = False

    async def __aenter__(self) -> Endpoint:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        # Servers on one's own machine want no key, but the SDK insists on some text. A prompt goes to the
        # address that the user gave and, whatever a redirect says, to no other.
        self._client = AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key or "none",
            max_retries=0,
            timeout=self._timeout,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def complete(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]],
        sampling: Mapping[str, Any],
        on_delta: DeltaListener | None = None,
        on_retry: Callable[[str], None] | None = None,
    ) -> Reply:
        """Ask for one reply; stream it when `on_delta` is given.

        Raises:
            EndpointError: when no attempt gave a usable reply.
        """
        # A request that is refused keeps its place, so that none behind it is refused too.
        async with self.gate:
            return await self._tried(messages, tools, sampling, on_delta, on_retry)

    async def _tried(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]],
        sampling: Mapping[str, Any],
        on_delta: DeltaListener | None,
        on_retry: Callable[[str], None] | None,
    ) -> Reply:
        attempts, waited = 0, 0.0
        while True:
            attempts += 1
            said = with_readable_arguments(messages) if self._wraps_malformed else messages
            request = self._api.request(said, tools, sampling)
            streamed = self._api.collector(on_delta) if on_delta else None
            sent_at = self.gate.clock()
            try:
                data = await self._send(request, streamed)
                self.gate.granted()
            except Exception as error:
                status, wait = self._judge(error, attempts)
                if status == 429 and wait is not None:
                    self.gate.refused(sent_at)
                if (
                    status in REJECTS_MALFORMED_ARGUMENTS
                    and not self._wraps_malformed
                    and has_malformed_arguments(messages)
                ):
                    self._wraps_malformed = True
                    continue
                # What was already shown to a person cannot be taken back by a second attempt.
                shown = streamed is not None and streamed.shown
                if (
                    wait is None
                    or shown
                    or attempts >= (self._retry.busy_attempts if status == 429 else self._retry.attempts)
                    or waited + wait > self._retry.wait_budget
                ):
                    begun = streamed is not None and streamed.answered
                    raise self._explained(error, attempts, begun) from error
                if on_retry:
                    on_retry(f"{_short(error)}; trying again in {wait:.1f} s")
                await asyncio.sleep(wait)
                waited += wait
            else:
                return self._reply(data, attempts)

    async def _send(self, request: dict[str, Any], streamed: StreamedReply | StreamedResponse | None) -> Any:
        if self._client is None:
            raise RuntimeError("Endpoint is used outside its `async with` block")
        if streamed is None:
            return self._api.finished(await self._api.whole(self._client, request))
        chunks = await self._api.stream(self._client, request)
        if isinstance(chunks, str):
            return chunks
        async with chunks:
            events = aiter(chunks)
            while True:
                # A server's comments keep the connection busy without a word of the reply.
                async with asyncio.timeout(self._idle_timeout):
                    chunk = await anext(events, None)
                if chunk is None:
                    break
                streamed.add(chunk)
        kind = chunks.response.headers.get("content-type", "")
        if not streamed.answered and "event-stream" not in kind:
            return f"{kind or 'no content type'} in place of a stream"  # the SDK reads no event in it
        if streamed.answered and not streamed.finished:
            raise BrokenStreamError("the stream ended in the middle of the reply")
        return self._api.finished(streamed.data())

    def _judge(self, error: Exception, attempts: int) -> tuple[int | None, float | None]:
        """The HTTP status (None without one) and the seconds to wait before a next try (None: do not try)."""
        import openai

        backoff = min(self._retry.longest_wait, self._retry.first_wait * 2 ** (attempts - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
        if isinstance(error, openai.APIConnectionError | BrokenStreamError | TimeoutError):
            return None, jittered
        if isinstance(error, FailedReplyError):
            return 429 if "rate_limit" in error.code else None, jittered if error.code in _PASSING else None
        if not isinstance(error, openai.APIStatusError):
            return None, None
        status = error.status_code
        if status not in _RETRIED or error.code == "insufficient_quota":
            return status, None
        if status == 429:  # the gate sends less already, so the waits need not double
            busy = min(self._retry.longest_wait, self._retry.first_wait * 2 ** ((attempts - 1) / 4))
            jittered = busy * random.uniform(0.5, 1.0)  # noqa: S311
        asked = _retry_after(error.response.headers)
        return status, jittered if asked is None else max(asked, jittered)

    def _explained(self, error: Exception, attempts: int, begun: bool) -> Exception:
        """The same failure as one sentence; what is not the endpoint's doing stays as it is.

        `begun` says that part of the reply had come.
        """
        import openai

        tries = "" if attempts == 1 else f" after {attempts} attempts"
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(
                f"the endpoint {self.public_url} did not answer within {self._timeout:g} s{tries}",
                type="timeout",
            )
        if isinstance(error, FailedReplyError):
            return EndpointError(
                f"the endpoint {self.public_url} says that its reply failed{tries} ({error.code}: "
                f"{truncate(str(error))})",
                type="reply_failed",
            )
        if isinstance(error, TimeoutError):
            return EndpointError(
                f"the endpoint {self.public_url} fell silent for {self._idle_timeout:g} s{tries}",
                type="idle",
            )
        if isinstance(error, BrokenStreamError) or (begun and isinstance(error, openai.APIConnectionError)):
            return EndpointError(
                f"the endpoint {self.public_url} broke off its answer{tries} ({error.__cause__ or error})",
                type="broken_off",
            )
        if isinstance(error, openai.APIConnectionError):
            return EndpointError(
                f"the endpoint {self.public_url} cannot be reached{tries} ({error.__cause__ or error}): "
                "is the model server running, and is --base-url right?",
                type="unreachable",
                setup=True,
            )
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            return EndpointError(
                f"the endpoint {self.public_url} answered {status}{tries} for model {self.model!r}: "
                f"{truncate(_server_text(error))}",
                type=f"http_{status}",
                setup=status in _SETUP,
            )
        if isinstance(error, openai.OpenAIError):
            return EndpointError(
                f"the endpoint {self.public_url} broke off its answer: {truncate(_server_text(error))}",
                type="broken_off",
            )
        if isinstance(error, ValueError):  # the SDK lets the JSON parser's own error through
            return EndpointError(
                f"the endpoint {self.public_url} answered with what is no JSON ({truncate(str(error), 120)})",
                type="broken_off" if begun else "not_a_completion",
            )
        return error

    def _reply(self, received: Any, attempts: int) -> Reply:
        # A proxy's HTML page with status 200 comes out of the SDK as plain text.
        if not isinstance(received, dict):
            raise EndpointError(
                f"the endpoint {self.public_url} answered with what is no reply of a model "
                f"({truncate(str(received), 80)!r}): does --base-url end in /v1?",
                type="not_a_completion",
                setup=True,
            )
        data = received
        choices = data.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(first, dict) or not isinstance(message, dict):
            said = truncate(str(data["error"])) if data.get("error") else "no choices"
            raise EndpointError(
                f"the endpoint {self.public_url} answered without a reply to use: {said}",
                type="no_choices",
            )
        if (size := len(str(message))) > _LONGEST_REPLY:
            raise EndpointError(
                f"the endpoint {self.public_url} sent a reply of {size} characters; more than "
                f"{_LONGEST_REPLY} are not taken",
                type="too_long",
            )
        return Reply(
            message=to_request_message(message),
            finish_reason=_if(str, first.get("finish_reason")),
            usage=_if(dict, data.get("usage")),
            model=_if(str, data.get("model")),
            attempts=attempts,
            prompt_token_ids=_ids(data.get("prompt_token_ids")),
            token_ids=_ids(first.get("token_ids")),
            logprobs=first.get("logprobs"),
            effective=_if(dict, data.get("effective")),
        )


def _if(kind: type[T], value: Any) -> T | None:
    """`value` if it is what it should be; what an endpoint garbled is as good as not given."""
    return value if isinstance(value, kind) else None


def _ids(value: Any) -> list[int] | None:
    ids = _if(list, value)
    return ids if ids is not None and all(type(each) is int for each in ids) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by number or by date; None when it does not ask."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        when = email.utils.parsedate_tz(value)
        return None if when is None else max(0.0, email.utils.mktime_tz(when) - time.time())


def _server_text(error: Any) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if body.get(key):
                return str(body[key])
    return str(body or error).strip()


def _short(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return f"the endpoint answered {status}" if status else f"the endpoint did not answer ({error})"
