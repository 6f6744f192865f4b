"""What a watcher of an episode is told, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.episode.schema import Consultation


@dataclass(frozen=True)
class Event:
    """Something that just happened.

    `reasoning` and `content` carry a streamed piece of text; `call` the raw arguments of a consultation that
    begins; `consulted` the finished consultation; `retry` why a request is sent again; `warning` a sentence.
    """

    kind: Literal["reasoning", "content", "call", "consulted", "retry", "warning"]
    text: str = ""
    consultation: Consultation | None = None


Listener = Callable[[Event], None]
