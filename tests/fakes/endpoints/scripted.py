"""A scripted OpenAI-compatible endpoint over real HTTP, with a queue of answers and a history of requests.

    with ScriptedEndpoint([call("kill a process"), "Use kill."]) as endpoint:
        ... base_url=endpoint.base_url, model="scripted" ...
    endpoint.requests[0]["messages"]

An answer is a text, a message (a dict with `role`), a `Raw` HTTP response, a completion (a dict with
`choices`), a `Drip` of pieces, or a function that takes the request and returns one of these. When the queue
is empty, `otherwise` answers every request. Without `otherwise` the endpoint returns 400, so that a test
notices an unexpected request. `strict` rejects the fields that `transformers serve` rejects.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.processes.live_server import LiveServer

# Request fields that `transformers serve` accepts. It returns 422 for any other field.
KNOWN_FIELDS = {"model", "messages", "tools", "temperature", "max_tokens", "top_p", "seed", "stream"}


@dataclass(frozen=True)
class Raw:
    """An HTTP response that is sent unchanged."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True)
class Drip:
    """A body in pieces: text and bytes are sent, numbers are pauses in seconds.

    `cut` closes the connection abruptly after the last piece.
    """

    pieces: Sequence[bytes | str | float]
    cut: bool = False
    content_type: str = "text/event-stream"
    status: int = 200


Answer = str | dict[str, Any] | Raw | Drip
Script = Answer | Callable[[dict[str, Any]], Answer]


def call(
    situation: str | None = None,
    *,
    arguments: str | None = None,
    id: str | None = "call_1",
    name: str = "consult_safety_rules",
    content: str | None = None,
) -> dict[str, Any]:
    """Returns an assistant message with one tool call, for a situation or with raw `arguments`."""
    raw = json.dumps({"situation": situation}) if arguments is None else arguments
    entry: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": raw}}
    if id is not None:
        entry["id"] = id
    return {"role": "assistant", "content": content, "tool_calls": [entry]}


class ScriptedEndpoint:
    """Context manager. It can be entered once."""

    def __init__(
        self,
        answers: Iterable[Script] = (),
        *,
        otherwise: Script | None = None,
        delay: float = 0.0,
        usage: dict[str, int] | None = None,
        port: int = 0,
        strict: bool = True,
        accepts: Iterable[str] = (),
    ) -> None:
        """`accepts` names request fields that this server accepts in addition to `KNOWN_FIELDS`."""
        self._known = KNOWN_FIELDS | set(accepts)
        self.answers: deque[Script] = deque(answers)
        self.requests: list[dict[str, Any]] = []
        """Bodies of the requests, in order of arrival."""
        self.raw_headers: list[list[tuple[bytes, bytes]]] = []
        """Their headers as bytes, repeated ones separately."""
        self.headers: list[dict[str, str]] = []
        """Headers of the requests, with names in lower case."""
        self.bodies: list[bytes] = []
        """Bodies of the requests as bytes."""
        self.other_paths: list[str] = []
        """Paths of the GET requests for other routes."""
        self.model_pages: list[str] = []
        """Query strings of the requests for `/v1/models`."""
        self.sent: list[bytes] = []
        """Bodies of the streamed replies, except for `Drip`s."""
        self.left = threading.Event()
        """Set when a client disconnects before the end of a `Drip`."""
        self._strict = strict
        self.in_flight_most = 0
        """Maximum number of requests that were in flight at the same time."""
        self._otherwise = otherwise
        self._delay = delay
        self._usage = usage or {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        self._in_flight = 0
        self._lock = threading.Lock()
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/responses", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/{path:path}", self._other),
        ]
        self._served = LiveServer(Starlette(routes=routes), port)

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.__exit__(kind, value, trace)

    @property
    def base_url(self) -> str:
        return f"{self._served.origin}/v1"

    async def _complete(self, request: Request) -> Response:
        try:
            raw = await request.body()
        except ClientDisconnect:  # the client disconnected before the request was complete
            return Response(status_code=400)
        body = json.loads(raw)
        with self._lock:
            self.bodies.append(raw)
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.raw_headers.append(list(request.headers.raw))
            script = self.answers.popleft() if self.answers else self._otherwise
            self._in_flight += 1
            self.in_flight_most = max(self.in_flight_most, self._in_flight)
        try:
            await asyncio.sleep(self._delay)
            return self._answer(body, script)
        finally:
            self._in_flight -= 1

    def _answer(self, body: dict[str, Any], script: Script | None) -> Response:
        if self._strict and (unknown := set(body) - self._known):
            return _json(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        if callable(script):
            script = script(body)
        if script is None:
            return _json(400, {"error": {"message": "the script of this endpoint has no further answer"}})
        if isinstance(script, Raw):
            return Response(script.body, script.status, script.headers, script.content_type)
        if isinstance(script, Drip):
            return StreamingResponse(self._drip(script), script.status, media_type=script.content_type)
        completion = self._completion(body, script)
        if body.get("stream"):
            options = body.get("stream_options") or {}
            usage = self._strict or bool(options.get("include_usage"))
            whole = "".join(_chunks(completion, usage)).encode()
            self.sent.append(whole)
            return StreamingResponse(_sliced(whole), media_type="text/event-stream")
        return _json(200, completion)

    async def _drip(self, drip: Drip) -> AsyncIterator[bytes]:
        done = False
        try:
            for piece in drip.pieces:
                if isinstance(piece, int | float):
                    await asyncio.sleep(piece)
                else:
                    yield piece.encode() if isinstance(piece, str) else piece
            done = True
        finally:
            if not done:
                self.left.set()
        if drip.cut:
            raise ConnectionError("the script cuts the connection here")

    async def _other(self, request: Request) -> Response:
        self.other_paths.append(request.url.path)
        return _json(404, {"error": {"message": "this endpoint has no such route"}})

    async def _models(self, request: Request) -> Response:
        self.model_pages.append(request.url.query)
        self.headers.append(dict(request.headers))
        return _json(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def _completion(self, body: dict[str, Any], answer: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(answer, dict) and "choices" in answer:
            return answer
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": self._usage,
        }


def _sliced(whole: bytes) -> Iterator[bytes]:
    """Splits a body at arbitrary places, as a network does."""
    for i in range(0, len(whole), 97):
        yield whole[i : i + 97]


def _chunks(completion: dict[str, Any], usage: bool = True) -> Iterator[str]:
    """Yields the completion as server-sent events, with texts and arguments in pieces of a few characters."""
    head = {k: v for k, v in completion.items() if k not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"

    def event(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    for choice in completion["choices"]:
        message = choice["message"]
        yield event({"role": "assistant"})
        for name, value in message.items():
            if name in ("role", "tool_calls") or value is None:
                continue
            for piece in _pieces(value) if isinstance(value, str) else [value]:
                yield event({name: piece})
        for index, entry in enumerate(message.get("tool_calls") or []):
            function = {**entry["function"], "arguments": ""}
            yield event({"tool_calls": [{**entry, "index": index, "function": function}]})
            for piece in _pieces(entry["function"]["arguments"]):
                yield event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield event({}, choice["finish_reason"])
    if usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': completion.get('usage')})}\n\n"
    yield "data: [DONE]\n\n"


def _pieces(text: str) -> list[str]:
    """Splits a text into pieces of five characters, or a long text into about a thousand pieces."""
    size = max(5, len(text) // 1000)
    return [text[i : i + size] for i in range(0, len(text), size)]


def _json(status: int, body: Any) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")
