"""The record of the model calls of one request: times and token counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from agent.endpoint import add_usage, as_chat_usage
from agent.episode import Turn, digest_of, now
from agent.gateway.exchange.conversation import Conversation, SplitReply


@dataclass
class TurnRecord:
    """Turns so far, for the episode log, and the token counts of the hidden ones."""

    turns: list[Turn] = field(default_factory=list)
    hidden_usage: dict[str, Any] | None = None
    """Token counts of the hidden turns; None if there were none, or the upstream did not count."""
    model: str | None = None
    """The model's name in the last reply."""
    started_at: str = field(default_factory=now)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._turn_started_at, self._turn_started = self.started_at, self.started

    def __len__(self) -> int:
        return len(self.turns)

    def begin(self) -> None:
        """Records the time at which a request goes out."""
        self._turn_started_at, self._turn_started = now(), time.monotonic()

    def add(self, conversation: Conversation, reply: SplitReply) -> None:
        """Records a reply of the model."""
        self.model = reply.model if isinstance(reply.model, str) else self.model
        usage = as_chat_usage(reply.usage) if conversation.api == "responses" else reply.usage
        self.turns.append(
            Turn(
                index=len(self.turns),
                request_digest=digest_of(
                    [conversation.request.body.get("model"), conversation.with_hint(conversation.entries)]
                ),
                finish_reason=reply.finish_reason if isinstance(reply.finish_reason, str) else None,
                usage=usage if isinstance(usage, dict) else None,
                started_at=self._turn_started_at,
                seconds=time.monotonic() - self._turn_started,
            )
        )

    def add_hidden_usage(self, usage: Any) -> None:
        """Adds the token counts of a hidden turn."""
        self.hidden_usage = add_usage(self.hidden_usage, usage if isinstance(usage, dict) else None)
