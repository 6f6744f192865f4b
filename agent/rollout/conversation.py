"""A conversation with the agent: each prompt continues from the answers before it."""

from __future__ import annotations

import uuid
from pathlib import Path

from agent.episode import Episode, EpisodeLog, Listener, Message, without_system
from agent.rollout.agent import Agent


class Conversation:
    """Sends prompts to an agent one after another, each as an episode with the earlier messages as history.

    Args:
        agent: answers the prompts.
        log: the log to which each episode is appended; None for no log.
        stream: whether `on_event` receives text piece by piece.
        on_event: receives the events of each episode.
    """

    def __init__(self, agent: Agent, log: Path | None, *, stream: bool, on_event: Listener) -> None:
        self._agent = agent
        self._log = log
        self._stream = stream
        self._on_event = on_event
        self._history: list[Message] = []

    async def ask(self, prompt: str) -> Episode:
        """Answers the next prompt.

        Raises:
            LogError: if the episode cannot be logged.
        """
        # The rulebook may change during a conversation: each prompt uses its current state.
        self._agent.context.forget_rules()
        episode = await self._agent.run(
            prompt,
            prompt_id=f"chat-{uuid.uuid4().hex[:12]}",
            history=self._history,
            stream=self._stream,
            on_event=self._on_event,
        )
        if self._log:
            with EpisodeLog(self._log) as log:
                log.append(episode)
        self._history = history_after(episode)
        return episode


def history_after(episode: Episode) -> list[Message]:
    """Returns the messages for the next prompt, without a prompt that was not answered."""
    messages = without_system(episode.messages)
    if episode.answer is not None:
        return messages
    users = [i for i, m in enumerate(messages) if m.get("content") == episode.prompt]
    return messages[: users[-1]]
