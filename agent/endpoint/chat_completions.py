"""Builds Chat Completions requests and reads their replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.endpoint.quirks import Quirks
from agent.endpoint.streaming import DeltaListener, StreamedReply
from agent.episode import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class ChatApi:
    """The Chat Completions API.

    A request contains only `model`, `messages`, `tools`, `stream` and the chosen sampling fields, because
    some servers reject others. Token ids, log-probabilities and the usage of a stream are requested only if
    the endpoint's row of the quirks table says that it returns them.
    """

    name = "chat"

    def __init__(self, model: str, quirks: Quirks) -> None:
        self._model = model
        self._quirks = quirks

    def request(
        self, messages: list[Message], tools: list[dict[str, Any]], sampling: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the body of a request."""
        body: dict[str, Any] = {"model": self._model, "messages": messages, **self._fields(sampling)}
        return {**body, "tools": tools} if tools else body

    def _fields(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the sampling fields under the endpoint's names, and requests for optional data."""
        fields = dict(sampling)
        if "max_tokens" in fields:
            fields[self._quirks.token_limit] = fields.pop("max_tokens")
        if self._quirks.logprobs == "yes":
            fields.setdefault("logprobs", True)
        if "chat_template_kwargs" in fields:  # the SDK accepts fields that OpenAI does not define only here
            options = fields.pop("chat_template_kwargs")
            fields["extra_body"] = {"chat_template_kwargs": options, **fields.get("extra_body", {})}
        if self._quirks.token_ids == "yes":  # noqa: S105
            fields["extra_body"] = {"return_token_ids": True, **fields.get("extra_body", {})}
        return fields

    async def complete(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """Requests an unstreamed reply; returns a completion as a dict, or the unexpected body unchanged."""
        reply: Any = await client.chat.completions.create(**body)
        return reply.to_dict(warnings=False) if hasattr(reply, "to_dict") else reply

    async def stream(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """Opens a stream; returns text unchanged if the endpoint sends text instead of a stream."""
        if self._quirks.stream_usage == "yes":
            body = {**body, "stream_options": {"include_usage": True}}
        return await client.chat.completions.create(**body, stream=True)

    def collector(self, on_delta: DeltaListener) -> StreamedReply:
        """Returns a collector of the chunks of a stream."""
        return StreamedReply(on_delta)

    def to_completion(self, data: Any) -> Any:
        """Returns a reply as a completion: here, unchanged."""
        return data
