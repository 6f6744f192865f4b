"""Reads from the log of an interrupted run which samples are finished, and which turns remain."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.endpoint import parse_arguments
from agent.episode import (
    NEWER_VERSION_REASON,
    ConversationTurn,
    Episode,
    History,
    Message,
    Mode,
    Sample,
    SkippedLine,
    StopReason,
    Turn,
    changed_settings,
    iter_log,
    settings_mismatch_message,
    without_system,
)
from agent.errors import LogError
from agent.rollout.agent import Agent
from agent.rollout.conversation import history_after
from agent.rollout.prompts import Prompt, PromptTurn


async def check_log_settings(log: Path, agent: Agent) -> None:
    """Checks that a log was started with this agent's settings, before anything is appended to it.

    Raises:
        LogError: with the settings that differ.
        RulesError: if the rule service cannot be queried.
    """
    first = next(iter_log(log), None) if log.is_file() else None
    if first is None:
        return
    settings = _episode_level(await agent.context.log_settings())
    if changed := changed_settings(_settings_of(first), settings):
        raise LogError(settings_mismatch_message(log, changed))


@dataclass(frozen=True)
class Outcome:
    """The fields of an episode that stay in memory; the log contains the rest."""

    mode: Mode
    stop_reason: StopReason
    without_rules: str | None
    cut_call: bool
    """Whether the limit on the tokens of a reply cut off a call of the rule tool."""

    @classmethod
    def of(cls, episode: Episode) -> Outcome:
        """Returns the outcome of an episode."""
        return cls(episode.mode, episode.stop_reason, episode.answered_without_rules, _has_cut_call(episode))


@dataclass
class LoggedSamples:
    """Content of the log of an earlier run."""

    outcomes: dict[Sample, Outcome] = field(default_factory=dict)
    """Finished samples."""
    histories: dict[Sample, list[Message]] = field(default_factory=dict)
    """Conversation id and sample index -> messages after the last finished turn."""
    skipped_lines: int = 0
    """Number of lines without an episode."""

    def outcomes_of(self, prompts: list[Prompt], samples: int) -> dict[Sample, Outcome]:
        """Returns the outcomes of these samples only."""
        keys = [
            (turn.prompt_id, index) for prompt in prompts for turn in prompt.turns for index in range(samples)
        ]
        return {key: self.outcomes[key] for key in keys if key in self.outcomes}

    def scripts(self, prompts: list[Prompt], samples: int, history: History) -> list[Script]:
        """Returns the scripts that remain of all samples of the prompts, in their order."""
        return [
            script
            for prompt in prompts
            for index in range(samples)
            for script in self._remaining(prompt, index, history)
        ]

    def _remaining(self, prompt: Prompt, index: int, history: History) -> list[Script]:
        """Returns the rest of one sample: one script, or one per turn if the turns are independent."""
        remaining = [turn for turn in prompt.turns if (turn.prompt_id, index) not in self.outcomes]
        if history == "last":
            return [Script(prompt, index, [turn], []) for turn in remaining]
        messages = self.histories.get((prompt.id, index), prompt.history)
        return [Script(prompt, index, remaining, messages)] if remaining else []


@dataclass(frozen=True)
class Script:
    """The turns that remain of one sample of a prompt, and the messages before them."""

    prompt: Prompt
    index: int
    turns: list[PromptTurn]
    history: list[Message]


def _has_cut_call(episode: Episode) -> bool:
    """Returns whether a reply that ended at its limit contains a call that cannot be read.

    A server that parses calls may end such a reply with `tool_calls` instead of `length`.
    """
    limit = episode.sampling_sent.get("max_tokens")
    cut = {turn.index for turn in episode.turns if _ended_at_limit(turn, limit)}
    return any(
        each.turn in cut and parse_arguments(each.arguments)[0] is None for each in episode.consultations
    )


def _ended_at_limit(turn: Turn, limit: int | None) -> bool:
    written = (turn.usage or {}).get("completion_tokens")
    return turn.finish_reason == "length" or (bool(limit) and written == limit)


def place_of(prompt: Prompt, turn: PromptTurn, history: History) -> ConversationTurn | None:
    """Returns the place of a turn in its conversation; None if the episode's messages show it."""
    last = prompt.turns[-1].number
    if len(prompt.turns) == 1 and (history == "full" or last == 1):
        return None
    return ConversationTurn(id=prompt.id, turn=turn.number, turns=last, history=history)


def _episode_level(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that every episode records."""
    run_level = ("seed", "mode_share", "call_token", "direct_draws", "history", "hint_share")
    return {name: value for name, value in settings.items() if name not in run_level}


def _settings_of(episode: Episode) -> dict[str, Any]:
    """Returns the settings of a logged episode, without the seed."""
    return {
        "model": episode.model_requested,
        "policy_version": episode.policy_version,
        "rulebook_digest": episode.rulebook_digest,
        "tool_schema_digest": episode.tool_schema_digest,
        "prompt_digest": episode.prompt_digest,
        "sampling": {name: value for name, value in episode.sampling_sent.items() if name != "seed"},
        "tool_mode": episode.tool_mode,
        **({} if episode.api == "chat" else {"api": episode.api}),
        "on_rules_error": episode.on_rules_error,
        "limits": episode.limits.model_dump(),
    }


def read_logged(
    log: Path, settings: dict[str, Any], prompts: list[Prompt], history: History
) -> LoggedSamples:
    """Reads what the log already contains.

    Raises:
        LogError: if the log has other settings or prompts, or a line of a later version.
    """
    turns = {turn.prompt_id: (prompt, turn) for prompt in prompts for turn in prompt.turns}
    expected = _episode_level(settings)
    skipped: list[SkippedLine] = []
    logged = LoggedSamples()
    next_turns: dict[Sample, int] = {}
    for episode in iter_log(log, skipped.append) if log.exists() else ():
        if changed := changed_settings(_settings_of(episode), expected):
            raise LogError(settings_mismatch_message(log, changed))
        prompt, turn = turns.get(episode.prompt_id, (None, None))
        if prompt and turn and (difference := _difference(episode, prompt, turn, history)):
            raise LogError(
                f"{log} has {difference} for the prompt {episode.prompt_id!r}: use another --log, or the "
                "original prompts"
            )
        if episode.stop_reason == "error":
            continue
        key = (episode.prompt_id, episode.sample_index)
        if prompt and turn and len(prompt.turns) > 1 and history == "full" and key not in logged.outcomes:
            sample = (prompt.id, episode.sample_index)
            due = next_turns.get(sample, prompt.turns[0].number)
            if turn.number != due:
                raise LogError(
                    f"{log} has turn {turn.number} of the conversation {prompt.id!r} but not turn {due}: use "
                    "another --log"
                )
            next_turns[sample] = due + 1
            logged.histories[sample] = history_after(episode)
            if turn == prompt.turns[-1]:
                del logged.histories[sample]  # only unfinished conversations are kept in memory
        logged.outcomes[key] = Outcome.of(episode)
    if newer := next((line for line in skipped if NEWER_VERSION_REASON in line.reason), None):
        raise LogError(f"{log} cannot be continued: line {newer.line} was {newer.reason}")
    logged.skipped_lines = len(skipped)
    return logged


def _difference(episode: Episode, prompt: Prompt, turn: PromptTurn, history: History) -> str | None:
    """Describes how a logged episode differs from the prompts; None if it does not."""
    if episode.prompt != turn.text:
        return "a different text"
    if episode.conversation != place_of(prompt, turn, history):
        return "a different place in a conversation or another --history"
    given = prompt.history if history == "full" else []
    if len(prompt.turns) == 1:
        given = [*given, {"role": "user", "content": turn.text}]
    return "a different history" if without_system(episode.messages)[: len(given)] != given else None
