"""Plays scripted conversations through the gateway, as an application does, and checks its invariants.

1. Nothing of one conversation appears in another: in no upstream request, in no reply to the application.
2. The application never sees a call of a tool that it did not offer.
3. Every call that it offered arrives once, with its own arguments and, in a stream, at a position of its own.
4. An untouched reply is the upstream's, byte for byte.
5. In the default mode, a request that works without the gateway works with it.
6. No oddity of the upstream ends in a 500, nor in a 502 or 504 unless the upstream sent no usable reply.
7. The header `x-ascl-consulted` tells the truth.
8. With hints, every request that offers the rule tool has the hint about its own last user message, once.
   The application never sees a hint.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.episode import Hint
from agent.gateway.app import Gateway
from agent.gateway.settings import Settings
from agent.tools import ConsultResult
from tests.fakes.endpoints.upstream_simulator import (
    MARKER,
    RULE_TOOL,
    Conversation,
    Sent,
    Simulator,
    Turn,
    refusal_of,
)

Api = Literal["chat", "responses"]
PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
DIGEST = "d" * 64
HINT = "hint about: "
TOOLS = ("get_weather", "book_table")


@dataclass(frozen=True)
class Reply:
    """A reply as the application receives it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.encode()]
        return found[0].decode("latin-1") if found else None


Send = Callable[[str, bytes], Awaitable[Reply]]
"""Sends a request's path and body to the gateway."""


@dataclass
class Shown:
    """Text and calls that an application reads from a reply."""

    text: str = ""
    calls: list[tuple[Any, str, str]] = field(default_factory=list)
    """(id, name, arguments), in order."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """Output items of a response."""
    faults: list[str] = field(default_factory=list)


class ApplicationRun:
    """One conversation of an application through the gateway. `play` returns the broken invariants."""

    def __init__(
        self, conversation: Conversation, api: Api, *, stream: bool, fields: dict[str, Any] | None = None
    ) -> None:
        self._conversation = conversation
        self._api = api
        self._stream = stream
        self._fields = fields or {}
        self._history: list[dict[str, Any]] = []
        self._faults: list[str] = []
        self._ids = itertools.count()

    async def play(self, send: Send) -> list[str]:
        conversation = self._conversation
        self._say("begins")
        while len(conversation.played) < len(conversation.turns) and not self._faults:
            before = len(conversation.played)
            body = self._body()
            reply = await send(PATHS[self._api], json.dumps(body).encode())
            played = conversation.played[before:]
            shown = self._check(body, reply, played)
            if shown is None:
                break
            self._continue(shown)
        marker = conversation.marker
        return [f"{marker} {self._api} stream={self._stream}: {fault}" for fault in self._faults]

    def _say(self, text: str) -> None:
        self._history.append({"role": "user", "content": f"{self._conversation.marker} {text}"})

    def _body(self) -> dict[str, Any]:
        chat = self._api == "chat"
        functions = [{"name": n, "parameters": {"type": "object", "properties": {}}} for n in TOOLS]
        tools = [{"type": "function", **({"function": f} if chat else f)} for f in functions]
        conversation = {"messages" if chat else "input": self._history}
        return {"model": "m", **conversation, "tools": tools, "stream": self._stream, **self._fields}

    def _check(self, body: dict[str, Any], reply: Reply, played: list[Turn]) -> Shown | None:
        """Checks a reply against the turns that the model played for it; None ends the conversation."""
        faults = self._faults
        if HINT.encode() in reply.body:
            faults.append(f"the reply holds a hint: {reply.body[:600]!r}")
        foreign = set(MARKER.findall(reply.body.decode("utf-8", "replace"))) - {self._conversation.marker}
        if foreign:
            faults.append(f"the reply holds texts of {sorted(foreign)}")
        if not played:
            direct = refusal_of(body, self._conversation.behaviour, self._api == "chat")
            if direct is None or reply.status != direct[0]:
                faults.append(f"status {reply.status} and no turn was played: {reply.body[:300]!r}")
            return None
        last = played[-1]
        if self._stream and last.status != 200 and b'"status": %d' % last.status in reply.body:
            return None  # the stream had begun, so the error is its last event
        if reply.status != last.status:
            faults.append(f"status {reply.status}, upstream {last.status}: {reply.body[:300]!r}")
            return None
        if [turn.hidden for turn in played[:-1]].count(False):
            faults.append("a turn with something to show was asked again")
        consulted = any(turn.consults for turn in played)
        self._check_header(reply, consulted)
        sent = self._conversation.replies[-1]
        if not consulted and HINT.encode() in sent.body:
            if _parsed(reply.body) != _parsed(sent.body):
                faults.append(f"a reply differs in more than the hint: {reply.body[:600]!r}")
        elif not consulted and reply.body != sent.body:
            faults.append(f"an untouched reply was changed: {reply.body[:600]!r} is not {sent.body[:600]!r}")
        if not consulted and len(played) == 1:
            self._check_headers_of_upstream(reply, sent)
        if last.status != 200 or last.hidden:
            if last.hidden:
                faults.append("the last turn only consults, but was not asked again")
            return None
        shown = read_reply(reply, self._api)
        if not consulted:
            return self._as_sent(last, shown)
        faults += shown.faults
        self._check_shown(shown, played)
        return shown

    def _check_header(self, reply: Reply, consulted: bool) -> None:
        state = reply.header("x-ascl-consulted")
        trailing = b": x-ascl-consulted: yes" in reply.body
        refused = self._conversation.refusals > 0
        truth = {
            "not-offered": refused and not consulted,
            "yes": consulted,
            "no": not consulted,
            "pending": self._stream and trailing <= consulted,
        }
        if not truth.get(str(state), False):
            self._faults.append(f"x-ascl-consulted is {state!r}, consulted: {consulted}")

    def _check_headers_of_upstream(self, reply: Reply, sent: Sent) -> None:
        received = [(name.lower(), value) for name, value in reply.headers]
        for name, value in sent.headers:
            if received.count((name, value)) != sent.headers.count((name, value)):
                self._faults.append(f"header {name!r}: {value!r} of the upstream is missing or doubled")

    def _check_shown(self, shown: Shown, played: list[Turn]) -> None:
        last = played[-1]
        beside = self._conversation.behaviour.content == "text"
        expected = [(call.name, call.arguments) for call in last.shown_calls]
        received = []
        for _, name, arguments in shown.calls:
            try:
                received.append((name, json.loads(arguments)))
            except ValueError:
                received.append((name, arguments))
        if received != expected:
            self._faults.append(f"calls {received}, expected {expected}")
        said = [turn.text for turn in played[:-1] if beside] if self._stream else []
        text = last.text if beside or not last.calls else ""
        allowed = {"".join([*said, text]), text}
        if shown.text.replace("\n", "") not in {each.replace("\n", "") for each in allowed}:
            self._faults.append(f"text {shown.text!r}, expected one of {sorted(allowed)}")

    def _as_sent(self, turn: Turn, shown: Shown) -> Shown:
        """An untouched reply counts as the model meant it: its oddities are the application's to read."""
        ids = [id for id, _, _ in shown.calls]
        calls = [
            (ids[i] if len(ids) == len(turn.calls) else None, call.name, json.dumps(call.arguments))
            for i, call in enumerate(turn.calls)
        ]
        return Shown(turn.text, calls, shown.items)

    def _continue(self, shown: Shown) -> None:
        """Appends the reply and the tools' results, or the next message of the user."""
        result = f"{self._conversation.marker} result"
        if self._api == "responses":
            self._history += shown.items
            for item in shown.items:
                if item.get("type") == "function_call":
                    call_id = item.get("call_id")
                    self._history.append(
                        {"type": "function_call_output", "call_id": call_id, "output": result}
                    )
        elif shown.calls:
            calls = [
                {
                    "id": id or f"app_{next(self._ids)}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for id, name, arguments in shown.calls
            ]
            self._history.append({"role": "assistant", "content": shown.text or None, "tool_calls": calls})
            for call in calls:
                self._history.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        else:
            self._history.append({"role": "assistant", "content": shown.text})
        if not shown.calls:
            self._say("goes further")


def misplaced_hints(conversation: Conversation) -> list[str]:
    """Returns what is wrong with the hints in the requests that the upstream received."""
    faults = []
    for body in conversation.requests:
        history = body["messages"] if "messages" in body else body["input"]
        said = [entry["content"] for entry in history if entry.get("role") == "user"]
        offered = RULE_TOOL in json.dumps(body.get("tools") or [])
        found = json.dumps(body).count(HINT)
        system = json.dumps([body.get("instructions"), [e for e in history if e.get("role") == "system"]])
        misplaced = found and f"{HINT}{said[-1]}" not in system
        if found > 1 or (offered and not found) or misplaced:
            faults.append(f"{conversation.marker}: {found} hints, offered: {offered}, system text: {system}")
    return faults


def _parsed(body: bytes) -> Any:
    """Returns the JSON values in a reply, without the instructions of a response."""
    text = body.decode().replace("\r\n", "\n")
    lines = [line[5:].strip() for line in text.split("\n") if line.startswith("data:")] or [text]
    values = [json.loads(line) for line in lines if line != "[DONE]"]
    for value in values:
        value.get("response", value).pop("instructions", None)
    return values


def read_reply(reply: Reply, api: Api) -> Shown:
    """Reads a reply strictly, as the official SDKs do."""
    streamed = "event-stream" in (reply.header("content-type") or "")
    if api == "chat":
        return _read_chat_stream(_events(reply.body)) if streamed else _read_chat(json.loads(reply.body))
    if not streamed:
        return _read_response(json.loads(reply.body))
    events = _events(reply.body)
    final = [event for event in events if event.get("type") == "response.completed"]
    if len(final) != 1:
        return Shown(faults=[f"{len(final)} final events"])
    shown = _read_response(final[0]["response"])
    done = [event["item"] for event in events if event.get("type") == "response.output_item.done"]
    positions = [e["output_index"] for e in events if e.get("type") == "response.output_item.done"]
    if positions != list(range(len(positions))):
        shown.faults.append(f"output items at positions {positions}")
    if not shown.items and done:
        return _read_response({"output": done})
    return shown


def _events(body: bytes) -> list[dict[str, Any]]:
    text = body.decode().replace("\r\n", "\n")
    data = [
        "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        for block in text.split("\n\n")
    ]
    return [json.loads(each) for each in data if each and each != "[DONE]"]


def _read_chat(completion: dict[str, Any]) -> Shown:
    message = completion["choices"][0]["message"]
    calls = [
        (call.get("id"), call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    ]
    return Shown(message.get("content") or "", calls)


def _read_chat_stream(events: list[dict[str, Any]]) -> Shown:
    shown, calls, finishes = Shown(), {}, []
    for event in events:
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            shown.text += delta.get("content") or ""
            finishes += [choice["finish_reason"]] if choice.get("finish_reason") else []
            for entry in delta.get("tool_calls") or []:
                if "index" not in entry:
                    shown.faults.append("a call without a position")
                call = calls.setdefault(entry.get("index"), {"id": None, "name": "", "arguments": ""})
                function = entry.get("function") or {}
                call["id"] = call["id"] or entry.get("id")
                call["name"] = call["name"] or function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
    if len(finishes) > 1:
        shown.faults.append(f"finish reasons {finishes}")
    shown.calls = [
        (c["id"], c["name"], c["arguments"]) for _, c in sorted(calls.items(), key=lambda e: str(e[0]))
    ]
    return shown


def _read_response(response: dict[str, Any]) -> Shown:
    items = response.get("output") or []
    texts = [part.get("text", "") for item in items for part in item.get("content") or []]
    calls = [(i.get("call_id"), i["name"], i["arguments"]) for i in items if i.get("type") == "function_call"]
    return Shown("".join(texts), calls, items)


class InProcessRules:
    """A rule service in this process: it repeats the situation, so that a leak of its answer is noticed."""

    public_url = "http://rules.test/mcp"

    async def __aenter__(self) -> InProcessRules:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def rulebook(self) -> dict[str, Any]:
        return {"name": "book", "version": "1", "digest": DIGEST}

    async def tool(self) -> dict[str, Any]:
        parameters = {"type": "object", "properties": {"situation": {"type": "string"}}}
        return {"type": "function", "function": {"name": RULE_TOOL, "parameters": parameters}}

    async def hint(self, request: str) -> Hint:
        await asyncio.sleep(0)
        return Hint(version="1", text=f"{HINT}{request}")

    async def consult(self, arguments: dict[str, Any]) -> ConsultResult:
        await asyncio.sleep(0)
        structured = {"verdict": "no_applicable_rule", "rules": [], "rulebook": {"digest": DIGEST}}
        return ConsultResult(f"rules about: {arguments.get('situation')}", structured, False)


def in_process(simulator: Simulator, **settings: Any) -> Send:
    """Returns a way to send requests to a gateway in this process, before this simulator."""
    import httpx2

    class Transport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            raw = await request.aread()
            await asyncio.sleep(0)
            sent = simulator.reply(request.url.path, raw)
            return httpx2.Response(sent.status, headers=sent.headers, stream=_Pieces(sent.pieces))

    class _Pieces(httpx2.AsyncByteStream):
        def __init__(self, pieces: list[bytes]) -> None:
            self._pieces = pieces

        async def __aiter__(self) -> Any:
            for piece in self._pieces:
                yield piece

    gateway = Gateway(Settings("http://upstream.test/v1", **settings), InProcessRules())  # type: ignore[arg-type]
    client = httpx2.AsyncClient(transport=Transport())
    gateway.upstream._client = lambda: client  # type: ignore[method-assign]

    async def send(path: str, raw: bytes) -> Reply:
        return await _call_asgi(gateway.app, path, raw)

    return send


async def _call_asgi(app: Any, path: str, raw: bytes) -> Reply:
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer sk-one-key-for-all"),
        (b"host", b"127.0.0.1:8809"),
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8809),
    }
    received = False
    head: dict[str, Any] = {"status": 0, "headers": []}
    pieces: list[bytes] = []

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            await asyncio.Event().wait()
        received = True
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
        else:
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    return Reply(head["status"], list(head["headers"]), b"".join(pieces))
