"""Chat Completions as the agent speaks it: what a request holds, and how a reply is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.endpoint.quirks import Quirks
from agent.endpoint.streaming import DeltaListener, StreamedReply
from agent.episode import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class ChatApi:
    """Only `model`, `messages`, `tools`, `stream` and the sampling fields that were chosen are sent: some
    servers refuse others. Token ids, log-probabilities and a stream's usage are asked for where the row of
    the quirks table says that the endpoint gives them.
    """

    name = "chat"

    def __init__(self, model: str, quirks: Quirks) -> None:
        self._model = model
        self._quirks = quirks

    def request(
        self, messages: list[Message], tools: list[dict[str, Any]], sampling: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a request."""
        body: dict[str, Any] = {"model": self._model, "messages": messages, **self._fields(sampling)}
        return {**body, "tools": tools} if tools else body

    def _fields(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """The sampling fields under the names that the endpoint knows, with what else it gives on demand."""
        named = dict(sampling)
        if "max_tokens" in named:
            named[self._quirks.token_limit] = named.pop("max_tokens")
        if self._quirks.logprobs == "yes":
            named.setdefault("logprobs", True)
        if self._quirks.token_ids == "yes":  # noqa: S105
            named["extra_body"] = {"return_token_ids": True, **named.get("extra_body", {})}
        return named

    async def whole(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """A reply in one piece: a completion as a dict, or whatever the endpoint answered in its place."""
        reply: Any = await client.chat.completions.create(**body)
        return reply.to_dict(warnings=False) if hasattr(reply, "to_dict") else reply

    async def stream(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """The open stream; text in place of one comes back as it is."""
        if self._quirks.stream_usage == "yes":
            body = {**body, "stream_options": {"include_usage": True}}
        return await client.chat.completions.create(**body, stream=True)

    def collector(self, listen: DeltaListener) -> StreamedReply:
        """What puts the chunks of a stream together."""
        return StreamedReply(listen)

    def finished(self, data: Any) -> Any:
        """A reply in the form of a completion: as it is."""
        return data
