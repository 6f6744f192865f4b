"""Checks the consistency of an episode log beyond the schema of its lines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from agent.episode.log import SkippedLine, iter_log
from agent.episode.messages import episode_messages, tool_calls, unanswered_call_ids
from agent.episode.schema import Consultation, Episode


@dataclass(frozen=True)
class LogProblem:
    """An inconsistency: the episode's ID (empty for a line that is not an episode) and a description."""

    episode_id: str
    what: str


def validate_log(path: Path) -> tuple[int, list[LogProblem]]:
    """Returns the number of episodes read and the problems found.

    Raises:
        LogError: if the file cannot be read.
    """
    problems: list[LogProblem] = []
    ids: Counter[str] = Counter()
    samples: Counter[tuple[str, int]] = Counter()

    def on_skip(line: SkippedLine) -> None:
        problems.append(LogProblem("", f"line {line.line} is not an episode: {line.reason}"))

    for episode in iter_log(path, on_skip):
        problems += [LogProblem(episode.id, what) for what in episode_problems(episode)]
        ids[episode.id] += 1
        # An application may send the same prompt any number of times.
        if episode.stop_reason != "error" and episode.source == "agent":
            samples[episode.group_id, episode.sample_index] += 1
            if samples[episode.group_id, episode.sample_index] == 2:
                problems.append(
                    LogProblem(episode.id, f"a second episode of {episode.prompt_id}#{episode.sample_index}")
                )
    problems += [LogProblem(id, f"the id occurs {n} times") for id, n in ids.items() if n > 1]
    return sum(ids.values()), problems


def episode_problems(episode: Episode) -> list[str]:
    """Returns the inconsistencies of one episode; empty if there are none."""
    problems = []
    if (episode.mode == "consult") != bool(episode.consultations) and not episode.mode_forced:
        problems.append(f"mode is {episode.mode} with {len(episode.consultations)} consultations")
    if (episode.stop_reason == "error") and episode.error is None:
        problems.append("stop_reason is error, but no error is recorded")
    if (episode.given_messages or 0) > len(episode.messages):
        problems.append("given_messages exceeds the number of messages")
    if [turn.index for turn in episode.turns] != list(range(len(episode.turns))):
        problems.append("the turns are not numbered 0, 1, 2, ...")
    # A call that the agent wrote precedes the first turn.
    turns = max(len(episode.turns), 1 if episode.mode_forced else 0)
    if any(consultation.turn >= turns for consultation in episode.consultations):
        problems.append("a consultation names a turn that does not exist")
    problems += _consultation_problems(episode)
    # An application answers its own calls, possibly in a later request.
    from_gateway = episode.source == "gateway"
    rule_calls = {consultation.call_id for consultation in episode.consultations}
    problems += [
        f"the call {id} has no answer, or several"
        for id in unanswered_call_ids(episode_messages(episode))
        if not from_gateway or id in rule_calls
    ]
    return problems


def _consultation_problems(episode: Episode) -> list[str]:
    """Returns the consultations that do not match the call that they answer."""
    calls = tool_calls(episode_messages(episode))
    arguments = {entry["id"]: entry["function"]["arguments"] for entry in calls}
    problems = []
    for consultation in episode.consultations:
        call_id = consultation.call_id
        if arguments.get(call_id, consultation.arguments) != consultation.arguments:
            problems.append(f"the consultation of call {call_id} has other arguments than the call")
        situation = _situation(consultation)
        if situation is not None and consultation.situation not in (None, situation):
            problems.append(
                f"the consultation of call {call_id} has a different situation from its arguments"
            )
    return problems


def _situation(consultation: Consultation) -> str | None:
    """Returns the situation in the arguments; None if they do not contain it as text."""
    try:
        value = json.loads(consultation.arguments)
    except (ValueError, RecursionError):
        return None
    situation = value.get("situation") if isinstance(value, dict) else None
    return situation if isinstance(situation, str) else None
