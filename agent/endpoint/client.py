"""Client of a model endpoint: Chat Completions or the Responses API, with one retry loop.

The SDK's own retries are disabled, because they would multiply with this loop and could not be counted.
`chat_completions.py` and `responses.py` build the requests and read the replies of the two APIs.
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
from agent.endpoint.quirks import REJECTS_MALFORMED_ARGUMENTS, Quirks, quirks_for_url
from agent.endpoint.responses import ResponsesApi, StreamedResponse
from agent.endpoint.streaming import BrokenStreamError, DeltaListener, FailedReplyError, StreamedReply
from agent.endpoint.tool_calls import has_malformed_arguments, truncate, wrap_malformed_arguments
from agent.episode import Api, Message, to_request_message
from agent.errors import EndpointError
from agent.urls import bearer, public_address, without_secrets

T = TypeVar("T")

_RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_TRANSIENT_CODES = frozenset({"server_error", "rate_limit_exceeded", "overloaded", "server_is_overloaded"})
_SETUP_STATUSES = frozenset({401, 403, 404})
_MAX_REPLY_CHARS = 16 * 1024 * 1024  # of one message, because a log line contains a whole episode


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts of a failed request, and the waits between them in seconds."""

    attempts: int = 5
    busy_attempts: int = 30
    """Attempts when the endpoint is overloaded (429), within the same wait budget."""
    first_wait: float = 0.5
    longest_wait: float = 20.0
    wait_budget: float = 120.0


@dataclass(frozen=True)
class Reply:
    """One reply of the model, as received."""

    message: Message
    finish_reason: str | None
    usage: dict[str, Any] | None
    model: str | None
    attempts: int
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: Any | None = None
    effective: dict[str, Any] | None = None
    """The sampling settings that the endpoint reported."""


def public_base_url(base_url: str) -> str:
    """Returns an endpoint's base URL without secrets, for messages and logs.

    Raises:
        EndpointError: if it is not a valid http(s) URL.
    """
    try:
        return public_address(base_url)
    except ValueError as error:
        raise EndpointError(
            f"invalid base URL {without_secrets(base_url)!r}: {error}. Example: http://127.0.0.1:8810/v1",
            type="bad_address",
            setup=True,
        ) from None


def key_header(api_key: str | None) -> dict[str, str]:
    """Returns the header with an endpoint's key.

    Raises:
        EndpointError: if a header cannot carry the key.
    """
    try:
        return bearer(api_key)
    except ValueError as error:
        raise EndpointError(
            f"the endpoint's API key is invalid: {error}; check OPENAI_API_KEY", type="bad_key", setup=True
        ) from None


class Endpoint:
    """A model at `base_url` (which usually ends in /v1). Use as an async context manager.

    Args:
        base_url: http(s); credentials in it are never recorded.
        model: the model's name at the endpoint.
        api_key: sent as a bearer token.
        timeout: maximum number of seconds between a request and its reply.
        idle_timeout: seconds without data after which a stream is abandoned.
        quirks: the endpoint's behaviour; None selects the row of the quirks table by host name.
        api: the API to use; callers see the same messages and replies for both.
        retry: number of attempts and waits after a failed request.

    Raises:
        EndpointError: if the URL or the key is invalid.
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
        self.public_url = public_base_url(base_url)
        key_header(api_key)
        self.base_url = base_url
        self.model = model
        self.api_key = (api_key or "").strip()
        self.timeout = timeout
        self._idle_timeout = idle_timeout
        self.quirks = quirks or quirks_for_url(base_url)
        self.api: Api = api
        self._api = (ResponsesApi if api == "responses" else ChatApi)(model, self.quirks)
        self.limiter = ConcurrencyLimiter()
        self._retry = retry
        self._client: Any = None
        self._wraps_malformed = self.quirks.malformed == "no"

    async def __aenter__(self) -> Endpoint:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        # Local servers need no key, but the SDK requires one. Redirects are not followed, so a prompt goes to
        # the address that the user gave and to no other.
        self._client = AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key or "none",
            max_retries=0,
            timeout=self.timeout,
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
        """Requests one reply; streams it if `on_delta` is given.

        Raises:
            EndpointError: if no attempt returned a usable reply.
        """
        # A refused request keeps its slot, so that the requests behind it are not refused too.
        async with self.limiter:
            return await self._complete_with_retries(messages, tools, sampling, on_delta, on_retry)

    async def _complete_with_retries(
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
            history = wrap_malformed_arguments(messages) if self._wraps_malformed else messages
            request = self._api.request(history, tools, sampling)
            streamed = self._api.collector(on_delta) if on_delta else None
            sent_at = self.limiter.clock()
            try:
                data = await self._send(request, streamed)
                self.limiter.granted()
            except Exception as error:
                status, wait = self._retry_wait(error, attempts)
                if status == 429 and wait is not None:
                    self.limiter.refused(sent_at)
                if (
                    status in REJECTS_MALFORMED_ARGUMENTS
                    and not self._wraps_malformed
                    and has_malformed_arguments(messages)
                ):
                    self._wraps_malformed = True
                    continue
                # A second attempt cannot take back text that was already displayed.
                shown = streamed is not None and streamed.shown
                if (
                    wait is None
                    or shown
                    or attempts >= (self._retry.busy_attempts if status == 429 else self._retry.attempts)
                    or waited + wait > self._retry.wait_budget
                ):
                    started = streamed is not None and streamed.answered
                    raise self._to_endpoint_error(error, attempts, started) from error
                if on_retry:
                    on_retry(f"{_brief(error)}; retrying in {wait:.1f} s")
                await asyncio.sleep(wait)
                waited += wait
            else:
                return self._to_reply(data, attempts)

    async def _send(self, request: dict[str, Any], streamed: StreamedReply | StreamedResponse | None) -> Any:
        if self._client is None:
            raise RuntimeError("Endpoint is not open: use it inside its `async with` block")
        if streamed is None:
            return self._api.to_completion(await self._api.complete(self._client, request))
        chunks = await self._api.stream(self._client, request)
        if isinstance(chunks, str):
            return chunks
        async with chunks:
            events = aiter(chunks)
            while True:
                # A server's comments keep the connection alive without any part of the reply.
                async with asyncio.timeout(self._idle_timeout):
                    chunk = await anext(events, None)
                if chunk is None:
                    break
                streamed.add(chunk)
        kind = chunks.response.headers.get("content-type", "")
        if not streamed.answered and "event-stream" not in kind:
            return f"{kind or 'no content type'} instead of a stream"  # the SDK finds no event in it
        if streamed.answered and not streamed.finished:
            raise BrokenStreamError("the stream ended in the middle of the reply")
        return self._api.to_completion(streamed.data())

    def _retry_wait(self, error: Exception, attempts: int) -> tuple[int | None, float | None]:
        """Returns the HTTP status, if any, and the seconds to wait before a retry (None: do not retry)."""
        import openai

        backoff = min(self._retry.longest_wait, self._retry.first_wait * 2 ** (attempts - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, not a secret
        if isinstance(error, openai.APIConnectionError | BrokenStreamError | TimeoutError):
            return None, jittered
        if isinstance(error, FailedReplyError):
            return (
                429 if "rate_limit" in error.code else None,
                jittered if error.code in _TRANSIENT_CODES else None,
            )
        if not isinstance(error, openai.APIStatusError):
            return None, None
        status = error.status_code
        if status not in _RETRIED_STATUSES or error.code == "insufficient_quota":
            return status, None
        if status == 429:  # the limiter already sends less, so the waits need not double
            busy = min(self._retry.longest_wait, self._retry.first_wait * 2 ** ((attempts - 1) / 4))
            jittered = busy * random.uniform(0.5, 1.0)  # noqa: S311
        requested = retry_after(error.response.headers)
        return status, jittered if requested is None else max(requested, jittered)

    def _to_endpoint_error(self, error: Exception, attempts: int, started: bool) -> Exception:
        """Returns a failure of the endpoint as one sentence, and any other exception unchanged.

        `started` means that part of the reply had arrived.
        """
        import openai

        tries = "" if attempts == 1 else f" after {attempts} attempts"
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(
                f"the endpoint {self.public_url} did not answer within {self.timeout:g} s{tries}",
                type="timeout",
            )
        if isinstance(error, FailedReplyError):
            return EndpointError(
                f"the endpoint {self.public_url} reported a failed reply{tries} ({error.code}: "
                f"{truncate(str(error))})",
                type="reply_failed",
            )
        if isinstance(error, TimeoutError):
            return EndpointError(
                f"the endpoint {self.public_url} sent nothing for {self._idle_timeout:g} s{tries}",
                type="idle",
            )
        if isinstance(error, BrokenStreamError) or (started and isinstance(error, openai.APIConnectionError)):
            return EndpointError(
                f"the endpoint {self.public_url} ended its reply early{tries} ({error.__cause__ or error})",
                type="broken_off",
            )
        if isinstance(error, openai.APIConnectionError):
            return EndpointError(
                f"the endpoint {self.public_url} cannot be reached{tries} ({error.__cause__ or error}): "
                "check that the model server is running and that --base-url is correct",
                type="unreachable",
                setup=True,
            )
        if isinstance(error, openai.APIStatusError):
            status, text = error.status_code, truncate(_server_text(error))
            refuses_bias = status in (400, 422) and "logit_bias" in text
            fix = ". It takes no logit_bias: omit --decision-bias and --call-token" if refuses_bias else ""
            return EndpointError(
                f"the endpoint {self.public_url} answered {status}{tries} for model {self.model!r}: "
                f"{text}{fix}",
                type=f"http_{status}",
                setup=status in _SETUP_STATUSES or refuses_bias,
            )
        if isinstance(error, openai.OpenAIError):
            return EndpointError(
                f"the endpoint {self.public_url} ended its reply early: {truncate(_server_text(error))}",
                type="broken_off",
            )
        if isinstance(error, ValueError):  # the SDK does not wrap the JSON parser's error
            return EndpointError(
                f"the endpoint {self.public_url} sent a reply that is not JSON ({truncate(str(error), 120)})",
                type="broken_off" if started else "not_a_completion",
            )
        return error

    def _to_reply(self, received: Any, attempts: int) -> Reply:
        # The SDK returns a proxy's HTML page with status 200 as plain text.
        if not isinstance(received, dict):
            raise EndpointError(
                f"the endpoint {self.public_url} sent something that is not a model's reply "
                f"({truncate(str(received), 80)!r}): does --base-url end in /v1?",
                type="not_a_completion",
                setup=True,
            )
        data = received
        choices = data.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(first, dict) or not isinstance(message, dict):
            reason = truncate(str(data["error"])) if data.get("error") else "no choices"
            raise EndpointError(
                f"the endpoint {self.public_url} answered without a usable reply: {reason}",
                type="no_choices",
            )
        if (size := len(str(message))) > _MAX_REPLY_CHARS:
            raise EndpointError(
                f"the endpoint {self.public_url} sent a reply of {size} characters; the "
                f"maximum is {_MAX_REPLY_CHARS}",
                type="too_long",
            )
        return Reply(
            message=to_request_message(message),
            finish_reason=_if_type(str, first.get("finish_reason")),
            usage=_if_type(dict, data.get("usage")),
            model=_if_type(str, data.get("model")),
            attempts=attempts,
            prompt_token_ids=_ids(data.get("prompt_token_ids")),
            token_ids=_ids(first.get("token_ids")),
            logprobs=first.get("logprobs"),
            effective=_if_type(dict, data.get("effective")),
        )


def _if_type(kind: type[T], value: Any) -> T | None:
    """Returns `value` if it has the expected type; treats a wrong type like a missing value."""
    return value if isinstance(value, kind) else None


def _ids(value: Any) -> list[int] | None:
    ids = _if_type(list, value)
    return ids if ids is not None and all(type(each) is int for each in ids) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds of a Retry-After header, given as a number or a date; None if there is none."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
        return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _server_text(error: Any) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if body.get(key):
                return str(body[key])
    return str(body or error).strip()


def _brief(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return f"the endpoint answered {status}" if status else f"the endpoint did not answer ({error})"
