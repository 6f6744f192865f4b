"""Builds Responses API requests and converts their replies to Chat Completions.

The output of a reply is a list of items: reasoning, messages, calls, and possibly unknown kinds. It becomes
one assistant message: `content` is the text, `reasoning` its plain-text part, `tool_calls` the
calls, and `response_items` all items unchanged. The next request sends these items back, including encrypted
reasoning, with each call followed by its answer. The provider stores nothing (`store: false`).
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
"""Field of an assistant message that contains the items of a reply."""
_UNSUPPORTED_FIELDS = frozenset({"seed", "logit_bias", "stop", "n", "presence_penalty", "frequency_penalty"})
_FINISH_REASONS = {"max_output_tokens": "length"}
_SAMPLING_FIELDS = ("temperature", "top_p", "max_output_tokens", "reasoning", "truncation", "service_tier")
_REASONING_EVENTS = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_TEXT_EVENTS = frozenset({"response.output_text.delta", "response.refusal.delta"})
_FINAL_EVENTS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
Item = dict[str, Any]


class ResponsesApi:
    """The Responses API; `Endpoint` adds the retry loop."""

    name = "responses"

    def __init__(self, model: str, quirks: Quirks) -> None:
        self._model = model
        self._quirks = quirks

    def request(
        self, messages: list[Message], tools: list[dict[str, Any]], sampling: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the body of a request.

        Raises:
            EndpointError: if this API does not support a sampling field.
        """
        fields = {**sampling, **sampling.get("extra_body", {})}
        fields.pop("extra_body", None)
        if unsupported := sorted(_UNSUPPORTED_FIELDS & fields.keys()):
            raise EndpointError(
                f"the Responses API does not support {', '.join(unsupported)}: omit it, or use --api chat",
                type="unknown_field",
                setup=True,
            )
        if "max_tokens" in fields:
            fields["max_output_tokens"] = fields.pop("max_tokens")
        include = ["reasoning.encrypted_content"]
        if self._quirks.logprobs == "yes":
            include.append("message.output_text.logprobs")
        body = {"model": self._model, "store": False, "include": include, **fields}
        rest = messages
        if messages and messages[0].get("role") == "system":
            body["instructions"], rest = messages[0].get("content"), messages[1:]
        body["input"] = [item for message in rest for item in _request_items(message)]
        if tools:
            body["tools"] = [{"type": "function", **tool["function"]} for tool in tools]
        return body

    async def complete(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """Requests an unstreamed reply and returns it unchanged."""
        # Not parsed by the SDK, whose response model adds fields that the endpoint did not send.
        return await client.post("/responses", cast_to=object, body=body)

    async def stream(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """Opens a stream of events."""
        from openai import AsyncStream

        kind: Any = AsyncStream[object]
        return await client.post(
            "/responses", cast_to=object, body={**body, "stream": True}, stream=True, stream_cls=kind
        )

    def collector(self, on_delta: DeltaListener) -> StreamedResponse:
        """Returns a collector of the events of a stream."""
        return StreamedResponse(on_delta)

    def to_completion(self, data: Any) -> Any:
        """Converts a response to a completion; returns anything else unchanged.

        Raises:
            FailedReplyError: if the response reports a failure.
        """
        if not isinstance(data, dict) or not isinstance(data.get("output"), list | None):
            return {"choices": [], **data} if isinstance(data, dict) else data
        if data.get("status") in ("failed", "cancelled"):
            raise failed_reply_error(data.get("error"), str(data["status"]))
        if data.get("output") is None:
            return {"choices": [], **data}
        items = [_without_nulls(item) for item in data["output"] if isinstance(item, dict)]
        message = _message(items)
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": _finish(data, message)}
        logprobs = [entry for part in _parts(items) for entry in part.get("logprobs") or []]
        if logprobs:
            choice["logprobs"] = {"content": logprobs}
        effective = {name: data[name] for name in _SAMPLING_FIELDS if data.get(name) is not None}
        return {
            "choices": [choice] if items else [],
            "model": data.get("model"),
            "usage": as_chat_usage(data.get("usage")),
            "effective": effective or None,
        }


class StreamedResponse:
    """Collects the events of a stream and passes each piece of text to the listener at once."""

    def __init__(self, on_delta: DeltaListener) -> None:
        self.shown = False
        """Whether the listener received any text."""
        self.answered = False
        """Whether any event arrived."""
        self.finished = False
        """Whether the final event arrived."""
        self._on_delta = on_delta
        self._response: dict[str, Any] = {}
        self._items: dict[Any, Item] = {}

    def add(self, event: Any) -> None:
        """Adds one event.

        Raises:
            FailedReplyError: if the event reports that the response failed.
        """
        if not isinstance(event, dict):
            return
        kind, text = str(event.get("type")), event.get("delta")
        if kind == "error":
            raise failed_reply_error(event, "failed")
        self.answered = True
        if kind in _REASONING_EVENTS | _TEXT_EVENTS and isinstance(text, str) and text:
            self.shown = True
            self._on_delta("reasoning" if kind in _REASONING_EVENTS else "content", text)
        elif kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._items[event.get("output_index", len(self._items))] = event["item"]
        elif kind in _FINAL_EVENTS:
            self.finished = True
            response = event.get("response")
            self._response = response if isinstance(response, dict) else {}

    def data(self) -> dict[str, Any]:
        """Returns the response in its unstreamed form.

        Prefers the items of the final event, because encrypted content differs between events.
        """
        items = self._response.get("output") or [self._items[at] for at in sorted(self._items, key=str)]
        return {"status": "completed", **self._response, "output": items}


def failed_reply_error(error: Any, status: str) -> FailedReplyError:
    """Returns the error of a failed response, for the retry loop."""
    details = error if isinstance(error, dict) else {}
    code, message = details.get("code"), details.get("message")
    return FailedReplyError(
        code if isinstance(code, str) else status, str(message or f"the response {status}")
    )


def _message(items: list[Item]) -> Message:
    parts = list(_parts(items))
    texts = [p["text"] for p in parts if p.get("type") == "output_text" and isinstance(p.get("text"), str)]
    refusals = [p["refusal"] for p in parts if isinstance(p.get("refusal"), str)]
    message: Message = {"role": "assistant", "content": "\n\n".join(texts) if texts else None}
    if reasoning := "\n\n".join(
        t for item in items if item.get("type") == "reasoning" for t in _reasoning_texts(item)
    ):
        message["reasoning"] = reasoning
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


def _reasoning_texts(item: Item) -> list[str]:
    for name in ("content", "summary"):
        parts = item.get(name)
        texts = [p.get("text") for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
        if readable := [text for text in texts if isinstance(text, str) and text]:
            return readable
    return []


def _finish(data: dict[str, Any], message: Message) -> str:
    if data.get("status") == "incomplete":
        details = data.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return _FINISH_REASONS.get(str(reason), str(reason or "incomplete"))
    return "tool_calls" if message.get("tool_calls") else "stop"


def _request_items(message: Message) -> Iterator[Item]:
    """Yields the items that represent a message."""
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls") or []
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": content}
        return
    items = message.get(RESPONSE_ITEMS) or []
    call_items = [item for item in items if item.get("type") == "function_call"]
    if items and len(call_items) == len(calls):
        entries = iter(calls)
        yield from _sendable([_call_item(i, next(entries)) if i in call_items else i for i in items])
        return
    # Calls that were parsed from text have no items: new call items replace the text.
    yield from _sendable([item for item in items if item.get("type") == "reasoning"])
    if content or not calls:
        yield {"role": role, "content": content or ""}
    for entry in calls:
        yield _call_item({"type": "function_call"}, entry)


def _call_item(item: Item, entry: dict[str, Any]) -> Item:
    """Returns a call item with the id, name and arguments of the conversation."""
    function = entry["function"]
    return {**item, "call_id": entry["id"], "name": function["name"], "arguments": function["arguments"]}


def _sendable(items: list[Item]) -> Iterator[Item]:
    """Drops reasoning items that have only an ID: the provider stores nothing, so it would reject the ID."""
    bare = [i for i in items if i.get("type") == "reasoning" and not i.get("encrypted_content")]
    bare = [item for item in bare if not item.get("content")]
    for item in items:
        if item not in bare:
            # The ID of an item that follows a reasoning item refers to that item.
            yield {k: v for k, v in item.items() if k != "id"} if bare else item


def _without_nulls(item: Item) -> Item:
    return {key: value for key, value in item.items() if value is not None}
