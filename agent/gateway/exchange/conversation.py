"""The conversation of one caller request: the model's input, and the hidden parts of its replies."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from agent.endpoint import ToolCall
from agent.episode import Api, Hint, Message
from agent.gateway.exchange.history import message_text
from agent.gateway.wire import CallerRequest, clean_name, only_named_tools, tool_names
from agent.tools import ToolOffer


@dataclass(frozen=True)
class SplitReply:
    """A reply of the model, divided into the part that the gateway executes and the part that is visible."""

    hidden_calls: list[ToolCall]
    """Calls of the rule tool, and of tools that nobody offered, each with an id that no other call has."""
    replay: list[Any]
    """The reply as messages or items that can be sent back to the model."""
    visible: Any
    """The part that the caller sees: a message, or a list of items."""
    mixed: bool
    """Whether the reply calls the caller's own tools."""
    reply: dict[str, Any]
    """The whole reply, unchanged."""
    finish_reason: Any
    usage: Any
    model: Any


Stage = Literal["offered", "forbidden", "removed"]
"""Whether the model may call the rule tool, must not (`tool_choice`), or does not see it."""


@dataclass(frozen=True)
class RequestBody:
    """A request to the upstream."""

    data: bytes
    has_offer: bool = True
    """Whether the gateway may still consult after this request."""
    has_bias: bool = True
    """Whether the request has the decision bias, if the settings ask for one."""


class Conversation(ABC):
    """Messages or items of one request, in the form of one API.

    Args:
        request: the caller's request.
        offer: the rule tool; None if it is not offered.
        hold: whether text before a consultation is withheld from the caller.
    """

    api: ClassVar[Api]
    text_part: ClassVar[str]
    """Type of a text among the parts of a message."""

    def __init__(self, request: CallerRequest, offer: ToolOffer | None, *, hold: bool) -> None:
        self.request = request
        self.offer = offer
        tools = request.body.get("tools")
        self._caller_tools = frozenset(tool_names(tools)) if only_named_tools(tools) else None
        """Names that the caller offers; None if calls may have other names."""
        self.hold = hold
        self.entries: list[Any] = []
        """The conversation as the model sees it: the caller's entries and the hidden turns."""
        self.given = 0
        """Number of entries before the hidden turns."""
        self.reply: list[Any] = []
        """The reply that the caller sees, with the rule tool's calls and results if it was mixed."""
        self.reasoning: dict[str, str] = {}
        """Reasoning text of the hidden turns, by the field that held it; empty in the Responses API."""
        self.has_hidden_turns = False
        self.restored = 0
        """Number of earlier replies whose hidden calls were restored."""
        self.logit_bias: dict[str, Any] | None = None
        """The offsets on logits that the gateway added to the last request; None if it added none."""
        self.hint: Hint | None = None
        """The hint that ends the system text while the rule tool is offered; None if there is none."""

    @property
    def prompt(self) -> str:
        """The text of the user's last message; empty if there is none."""
        users = (m for m in reversed(self.given_messages()) if m.get("role") == "user")
        return message_text(next(users, {}))

    def with_hint(self, entries: list[Any]) -> list[Any]:
        """Returns the entries with the hint appended to the system messages at the beginning."""
        if self.hint is None:
            return entries
        leading = next((i for i, entry in enumerate(entries) if not is_system(entry)), len(entries))
        if leading == 0:
            return [{"role": "system", "content": self.hint.text}, *entries]
        last = entries[leading - 1]
        content = self.end_with_hint(last.get("content"), self.hint.text)
        return [*entries[: leading - 1], {**last, "content": content}, *entries[leading:]]

    def end_with_hint(self, content: Any, hint: str) -> Any:
        if isinstance(content, list):
            return [*content, {"type": self.text_part, "text": f"\n\n{hint}"}]
        return f"{content}\n\n{hint}" if isinstance(content, str) and content else hint

    def hides(self, name: Any) -> bool:
        """Returns whether the gateway answers calls of a tool: the rule tool, or one that nobody offered."""
        if self.offer is None or not isinstance(name, str) or not name:
            return False
        if clean_name(name) == self.offer.name:
            return True
        offered = self._caller_tools
        return offered is not None and name not in offered and clean_name(name) not in offered

    def may_become_hidden(self, prefix: str) -> bool:
        """Returns whether a name that starts like this may be one that the gateway hides."""
        if self.offer is None:
            return False
        known = [] if self._caller_tools is None else list(self._caller_tools)
        longer = [name for name in [*known, self.offer.name] if name != prefix and name.startswith(prefix)]
        return bool(longer) or not prefix or self.hides(prefix)

    def name_to_replay(self, name: Any) -> str:
        """Returns the name of a hidden call in a form that every upstream accepts."""
        cleaned = clean_name(str(name))
        return re.sub(r"[^a-zA-Z0-9_-]", "_", cleaned)[:64] or "unknown"

    @staticmethod
    @abstractmethod
    def reason_not_offered(body: Mapping[str, Any]) -> str | None:
        """Returns the reason why a request is forwarded without the rule tool; None if it can be offered."""

    @abstractmethod
    def bodies(self, stage: Stage) -> list[RequestBody]:
        """Returns the next request to the upstream, then its fallbacks if the upstream refuses it, in
        order."""

    @abstractmethod
    def withdraw_offer(self) -> None:
        """Continues as if the rule tool had not been offered: the caller's own request was sent."""

    @abstractmethod
    def parse(self, reply: dict[str, Any], turn: int) -> SplitReply:
        """Divides a reply of the upstream; `turn` is its index, which new call ids are derived from."""

    @abstractmethod
    def add_hidden_turn(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        """Appends a reply that only consulted, with the results by call id."""

    @abstractmethod
    def add_mixed_reply(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        """Stores a mixed reply, so that a later request can restore its consultations."""

    @abstractmethod
    def add_visible_reply(self, parsed: SplitReply) -> None:
        """Records the reply that ends the conversation."""

    @abstractmethod
    def given_messages(self, *, with_hint: bool = False) -> list[Message]:
        """Returns the caller's messages in the format of `Episode.messages`."""

    @abstractmethod
    def written_messages(self) -> list[Message]:
        """Returns the hidden turns and the visible reply in the format of `Episode.messages`."""


def is_system(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("role") in ("system", "developer")
