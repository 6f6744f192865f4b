"""Which messages of an episode are the model's replies in it."""

from __future__ import annotations

from agent.episode import Episode


def reply_places(episode: Episode) -> list[int]:
    """Where in `messages` the reply of each turn stands: the last assistant messages, one for each turn."""
    places = [at for at, message in enumerate(episode.messages) if message.get("role") == "assistant"]
    # A refusal for want of rules, or an opened first call, is the agent's and belongs to no turn.
    if places and episode.stop_reason == "refused" and episode.error is not None:
        places.pop()
    return places[-len(episode.turns) :] if episode.turns else []
