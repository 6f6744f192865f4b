"""Prompts of a calibration set, as the model receives them: with the system text and the tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.episode import Episode, count_given_messages, digest_of, iter_log
from agent.errors import LogError
from agent.tools import RULE_TOOL
from evaluation.prompts import PromptError, load_prompts
from trainer.errors import TrainingError
from trainer.tokens.chat_template import on_day_of, sampled_options

_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class CalibrationPrompt:
    """A prompt with a kind."""

    id: str
    kind: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    """Options of the chat template."""


def logged_prompts(logs: Sequence[Path]) -> tuple[list[CalibrationPrompt], int]:
    """Returns the distinct prompts of logs whose episodes were offered the rule tool.

    Returns:
        The prompts, and the number of episodes left out, which have no kind or no rule tool.

    Raises:
        TrainingError: a log cannot be read.
    """
    found: dict[str, CalibrationPrompt] = {}
    left_out = 0
    for episode in calibration_episodes(logs):
        if episode.kind is None or not _offers_rules(episode):
            left_out += 1
            continue
        prompt = prompt_of(episode)
        found.setdefault(digest_of([prompt.messages, prompt.tools]), prompt)
    return list(found.values()), left_out


def file_prompts(spec: str, logs: Sequence[Path]) -> list[CalibrationPrompt]:
    """Returns the prompts of a file, with the system text, tools and template options of the first episode.

    Args:
        spec: path, `builtin:NAME`, `suite:NAME` or `hub:...`.
        logs: logs whose first episode is used; if empty, that of the cold start's demonstrations is used.

    Raises:
        TrainingError: the prompts or a log cannot be read, or no episode was offered the rule tool.
    """
    from trainer.stages.sft.stage import DEMONSTRATIONS

    try:
        prompts = load_prompts(spec)
    except PromptError as error:
        raise TrainingError(f"--prompts: {error}") from None
    sources = list(logs) or [DEMONSTRATIONS]
    first = next((each for each in calibration_episodes(sources) if _offers_rules(each)), None)
    if first is None:
        names = ", ".join(map(str, sources))
        raise TrainingError(f"no episode of {names} was offered the rule tool: pass a log with the rules")
    like = prompt_of(first)
    system = [message for message in like.messages[:1] if message.get("role") in _SYSTEM_ROLES]
    return [
        CalibrationPrompt(
            prompt.id,
            prompt.kind,
            [*system, *prompt.history, {"role": "user", "content": prompt.prompt}],
            like.tools,
            like.options,
        )
        for prompt in prompts
    ]


def calibration_episodes(logs: Sequence[Path]) -> list[Episode]:
    """Returns the episodes of logs.

    Raises:
        TrainingError: a log cannot be read.
    """
    try:
        return [episode for log in logs for episode in iter_log(log)]
    except LogError as error:
        raise TrainingError(str(error)) from None


def prompt_of(episode: Episode) -> CalibrationPrompt:
    """Returns the prompt of an episode: the messages before its first reply."""
    given = count_given_messages(episode.messages, episode.given_messages)
    options = on_day_of(sampled_options(episode.sampling_sent), episode.started_at)
    return CalibrationPrompt(
        episode.prompt_id, episode.kind or "", episode.messages[:given], episode.tools, options
    )


def _offers_rules(episode: Episode) -> bool:
    return any((tool.get("function") or {}).get("name") == RULE_TOOL for tool in episode.tools)
