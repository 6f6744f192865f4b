"""Separates the earlier turns of a conversation from the episode that continues it.

A log may contain requests of one conversation after another (the gateway, a chat). Episodes are samples of
one distribution, and so a group, only if the whole conversation before them is the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.episode import count_given_messages, digest_of, has_reply
from trainer.groups.log_reader import LoggedEpisode

_DIGEST_CHARS = 16


def split_history(episode: LoggedEpisode, text: str) -> tuple[int | None, str]:
    """Returns the number of messages before an episode's replies, and the id of the episode's group.

    Without earlier replies, the number is None and the id that of the log. Otherwise the id also names the
    earlier messages: logs of earlier versions gave conversations with the same last message one id.

    Args:
        text: text of the field `messages`.
    """
    turns = len(episode.turns)
    if episode.given_messages is None and not _may_have_history(episode, text):
        return None, episode.group_id
    messages: list[Any] = [each for each in msgspec.json.decode(text) if isinstance(each, dict)]
    given = count_given_messages(
        messages, episode.given_messages, turns if episode.source == "gateway" else 0
    )
    earlier = messages[:given]
    if not has_reply(earlier):
        return None, episode.group_id
    return given, f"{episode.group_id}-{digest_of(earlier)[:_DIGEST_CHARS]}"


def _may_have_history(episode: LoggedEpisode, text: str) -> bool:
    """Tests the raw text, so that most episodes need not be decoded: in texts, quotes are escaped."""
    if text.count('"user"') != 1 or text.find('"user"') > text.find('"assistant"') >= 0:
        return True
    return episode.source == "gateway" and text.count('"assistant"') > len(episode.turns)
