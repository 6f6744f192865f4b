"""The Responses API as the agent speaks it, told as Chat Completions to everything else.

A reply's output is a list of items: thoughts, messages, calls, and kinds that we need not know. It becomes
one assistant message: `content` is the text, `reasoning` the readable part of the thoughts, `tool_calls` the
calls, and `response_items` all items as they came. The next request sends these items back whole, encrypted
thoughts included, each call followed by its answer. Nothing is stored at the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent.endpoint.quirks import Quirks
from agent.endpoint.streaming import DeltaListener, FailedReplyError
from agent.endpoint.usage import as_chat_usage
from agent.episode import Message
from agent.errors import EndpointError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RESPONSE_ITEMS = "response_items"
"""Field of an assistant message that holds the items of a reply."""
_UNKNOWN = frozenset({"seed", "logit_bias", "stop", "n", "presence_penalty", "frequency_penalty"})
_LIMITS = {"max_output_tokens": "length"}
_EFFECTIVE = ("temperature", "top_p", "max_output_tokens", "reasoning", "truncation", "service_tier")
_THOUGHTS = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_TEXTS = frozenset({"response.output_text.delta", "response.refusal.delta"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
Item = dict[str, Any]


class ResponsesApi:
    """Requests and replies; the retry loop around them is the endpoint's."""

    name = "responses"

    def __init__(self, model: str, quirks: Quirks) -> None:
        self._model = model
        self._quirks = quirks

    def request(
        self, messages: list[Message], tools: list[dict[str, Any]], sampling: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a request.

        Raises:
            EndpointError: when a sampling field has no counterpart in this API.
        """
        named = dict(sampling)
        if unknown := sorted(_UNKNOWN & named.keys()):
            raise EndpointError(
                f"the Responses API has no {' and no '.join(unknown)}: leave it out, or use --api chat",
                type="unknown_field",
                setup=True,
            )
        if "max_tokens" in named:
            named["max_output_tokens"] = named.pop("max_tokens")
        include = ["reasoning.encrypted_content"]
        if self._quirks.logprobs == "yes":
            include.append("message.output_text.logprobs")
        body = {"model": self._model, "store": False, "include": include, **named}
        rest = messages
        if messages and messages[0].get("role") == "system":
            body["instructions"], rest = messages[0].get("content"), messages[1:]
        body["input"] = [item for message in rest for item in _items(message)]
        if tools:
            body["tools"] = [{"type": "function", **tool["function"]} for tool in tools]
        return body

    async def whole(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """A reply in one piece, as the endpoint sent it."""
        # Unparsed: the SDK's model of a response drops nothing, but fills in what was not there.
        return await client.post("/responses", cast_to=object, body=body)

    async def stream(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """The open stream of events."""
        from openai import AsyncStream

        kind: Any = AsyncStream[object]
        return await client.post(
            "/responses", cast_to=object, body={**body, "stream": True}, stream=True, stream_cls=kind
        )

    def collector(self, listen: DeltaListener) -> StreamedResponse:
        """What puts the events of a stream together."""
        return StreamedResponse(listen)

    def finished(self, data: Any) -> Any:
        """A response in the form of a completion; anything that is no response as it is.

        Raises:
            FailedReply: when the response says that it failed.
        """
        if not isinstance(data, dict) or not isinstance(data.get("output"), list | None):
            return {"choices": [], **data} if isinstance(data, dict) else data
        if data.get("status") in ("failed", "cancelled"):
            raise failed(data.get("error"), str(data["status"]))
        if data.get("output") is None:
            return {"choices": [], **data}
        items = [_without_nulls(item) for item in data["output"] if isinstance(item, dict)]
        message = _message(items)
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": _finish(data, message)}
        scores = [s for part in _parts(items) for s in part.get("logprobs") or []]
        if scores:
            choice["logprobs"] = {"content": scores}
        effective = {name: data[name] for name in _EFFECTIVE if data.get(name) is not None}
        return {
            "choices": [choice] if items else [],
            "model": data.get("model"),
            "usage": as_chat_usage(data.get("usage")),
            "effective": effective or None,
        }


class StreamedResponse:
    """Collects the events of one response; tells the listener of every piece of text as it comes."""

    def __init__(self, listen: DeltaListener) -> None:
        self.shown = False
        """Whether the listener was told anything."""
        self.answered = False
        """Whether any event came."""
        self.finished = False
        """Whether the last event came."""
        self._listen = listen
        self._response: dict[str, Any] = {}
        self._done: dict[Any, Item] = {}

    def add(self, event: Any) -> None:
        """Take in one event.

        Raises:
            FailedReply: when it says that the response failed.
        """
        if not isinstance(event, dict):
            return
        kind, text = str(event.get("type")), event.get("delta")
        if kind == "error":
            raise failed(event, "failed")
        self.answered = True
        if kind in _THOUGHTS | _TEXTS and isinstance(text, str) and text:
            self.shown = True
            self._listen("reasoning" if kind in _THOUGHTS else "content", text)
        elif kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._done[event.get("output_index", len(self._done))] = event["item"]
        elif kind in _ENDS:
            self.finished = True
            response = event.get("response")
            self._response = response if isinstance(response, dict) else {}

    def data(self) -> dict[str, Any]:
        """The response as an unstreamed one; items of the last event come before those seen on the way,
        because what is encrypted differs from event to event."""
        items = self._response.get("output") or [self._done[at] for at in sorted(self._done, key=str)]
        return {"status": "completed", **self._response, "output": items}


def failed(error: Any, status: str) -> FailedReplyError:
    """What a failed response is to the retry loop."""
    said = error if isinstance(error, dict) else {}
    code, message = said.get("code"), said.get("message")
    return FailedReplyError(
        code if isinstance(code, str) else status, str(message or f"the response {status}")
    )


def _message(items: list[Item]) -> Message:
    parts = list(_parts(items))
    texts = [p["text"] for p in parts if p.get("type") == "output_text" and isinstance(p.get("text"), str)]
    refusals = [p["refusal"] for p in parts if isinstance(p.get("refusal"), str)]
    message: Message = {"role": "assistant", "content": "\n\n".join(texts) if texts else None}
    if thought := "\n\n".join(
        t for item in items if item.get("type") == "reasoning" for t in _thoughts(item)
    ):
        message["reasoning"] = thought
    if refusals:
        message["refusal"] = "\n\n".join(refusals)
    if calls := [item for item in items if item.get("type") == "function_call"]:
        message["tool_calls"] = [
            {
                "id": call.get("call_id"),
                "type": "function",
                "function": {"name": call.get("name"), "arguments": call.get("arguments")},
            }
            for call in calls
        ]
    return {**message, RESPONSE_ITEMS: items}


def _parts(items: list[Item]) -> Iterator[dict[str, Any]]:
    for item in items:
        if item.get("type") == "message" and isinstance(content := item.get("content"), list):
            yield from (part for part in content if isinstance(part, dict))


def _thoughts(item: Item) -> list[str]:
    for name in ("content", "summary"):
        parts = item.get(name)
        found = [p.get("text") for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
        if texts := [text for text in found if isinstance(text, str) and text]:
            return texts
    return []


def _finish(data: dict[str, Any], message: Message) -> str:
    if data.get("status") == "incomplete":
        details = data.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return _LIMITS.get(str(reason), str(reason or "incomplete"))
    return "tool_calls" if message.get("tool_calls") else "stop"


def _items(message: Message) -> Iterator[Item]:
    """A message as the items that say the same."""
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls") or []
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": content}
        return
    items = message.get(RESPONSE_ITEMS) or []
    made = [item for item in items if item.get("type") == "function_call"]
    if items and len(made) == len(calls):
        entries = iter(calls)
        yield from _sendable([_called(i, next(entries)) if i in made else i for i in items])
        return
    # Calls that were read out of text have no items: they stand in for the text that they were written in.
    yield from _sendable([item for item in items if item.get("type") == "reasoning"])
    if content or not calls:
        yield {"role": role, "content": content or ""}
    for entry in calls:
        yield _called({"type": "function_call"}, entry)


def _called(item: Item, entry: dict[str, Any]) -> Item:
    """A call with the id, name and arguments that the conversation has for it."""
    function = entry["function"]
    return {**item, "call_id": entry["id"], "name": function["name"], "arguments": function["arguments"]}


def _sendable(items: list[Item]) -> Iterator[Item]:
    """Without thoughts of which only the id came: nothing is stored under it, so it would be refused."""
    bare = [i for i in items if i.get("type") == "reasoning" and not i.get("encrypted_content")]
    bare = [item for item in bare if not item.get("content")]
    for item in items:
        if item not in bare:
            # What follows a thought names it by its own id.
            yield {k: v for k, v in item.items() if k != "id"} if bare else item


def _without_nulls(item: Item) -> Item:
    return {key: value for key, value in item.items() if value is not None}
