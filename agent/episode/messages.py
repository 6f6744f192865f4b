"""An assistant message as it goes back to an endpoint: as it came, less what says nothing."""

from __future__ import annotations

import json

from agent.episode import Message


def echoed(message: Message) -> Message:
    """What can be sent back: as text without halves of surrogate pairs, and without fields that say nothing
    (null, empty list), which some servers refuse."""
    message = json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
    kept = {key: value for key, value in message.items() if value is not None and value != []}
    return {"content": message.get("content"), **kept, "role": "assistant"}
