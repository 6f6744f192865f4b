"""Whether a log holds what it promises, beyond the format of its lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from agent.episode.log import SkippedLine, iter_log
from agent.episode.messages import unanswered_call_ids
from agent.episode.schema import Episode


@dataclass(frozen=True)
class LogProblem:
    """Something wrong: in which episode (empty when it is a line that is none), and what."""

    episode_id: str
    what: str


def validate_log(path: Path) -> tuple[int, list[LogProblem]]:
    """The number of episodes read, and what is wrong.

    Raises:
        LogError: when the file cannot be read.
    """
    problems: list[LogProblem] = []
    ids: Counter[str] = Counter()
    samples: Counter[tuple[str, int]] = Counter()

    def skipped(line: SkippedLine) -> None:
        problems.append(LogProblem("", f"line {line.line} is no episode: {line.reason}"))

    for episode in iter_log(path, skipped):
        problems += [LogProblem(episode.id, what) for what in problems_of(episode)]
        ids[episode.id] += 1
        # An application may ask the same thing as often as it likes.
        if episode.stop_reason != "error" and episode.source == "agent":
            samples[episode.group_id, episode.sample_index] += 1
            if samples[episode.group_id, episode.sample_index] == 2:
                problems.append(
                    LogProblem(episode.id, f"a second episode of {episode.prompt_id}#{episode.sample_index}")
                )
    problems += [LogProblem(id, f"the id comes {n} times") for id, n in ids.items() if n > 1]
    return sum(ids.values()), problems


def problems_of(episode: Episode) -> list[str]:
    """What is wrong in one episode; empty when all fits together."""
    found = []
    if (episode.mode == "consult") != bool(episode.consultations) and not episode.mode_forced:
        found.append(f"mode is {episode.mode} with {len(episode.consultations)} consultations")
    if (episode.stop_reason == "error") and episode.error is None:
        found.append("stop_reason is error, and no error is recorded")
    if [turn.index for turn in episode.turns] != list(range(len(episode.turns))):
        found.append("the turns are not numbered 0, 1, 2, ...")
    # A call that the agent wrote stands before the first turn.
    turns = max(len(episode.turns), 1 if episode.mode_forced else 0)
    if any(c.turn >= turns for c in episode.consultations):
        found.append("a consultation names a turn that does not exist")
    # An application answers its own calls, and may do so in a later request.
    foreign = episode.source == "gateway"
    ours = {consultation.call_id for consultation in episode.consultations}
    found += [
        f"the call {id} has no answer, or several"
        for id in unanswered_call_ids(episode.messages)
        if not foreign or id in ours
    ]
    return found
