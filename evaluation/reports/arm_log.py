"""Reads an arm of a report: a named episode log and its rewards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.episode import Episode, SkippedLine, iter_log
from evaluation.errors import ArmError
from evaluation.scorers import Reward, read_rewards, score_log

MAX_NAME = 40


@dataclass(frozen=True)
class Arm:
    """One arm.

    `rewards_path` is None if the episodes were scored while reading. `unmatched_rewards` counts rewards of
    episodes that are not in the log.
    """

    name: str
    log: Path
    rewards_path: Path | None
    digest: str
    episodes: list[Episode]
    skipped: list[SkippedLine]
    rewards: dict[str, Reward]
    unmatched_rewards: int

    def option(self) -> str:
        """Returns the arm as it is written on the command line."""
        return f"{self.name}={self.log}" + (f":{self.rewards_path}" if self.rewards_path else "")


def parse_arm(text: str) -> tuple[str, Path, Path | None]:
    """Parses `NAME=LOG` or `NAME=LOG:REWARDS`.

    Raises:
        ArmError: the name or the log is missing, or the name is too long for a column.
    """
    name, equals, paths = text.partition("=")
    name = name.strip()
    if not equals or not name or not paths:
        raise ArmError(
            f"--arm '{text}' is not NAME=LOG or NAME=LOG:REWARDS, such as before=runs/before.jsonl"
        )
    if len(name) > MAX_NAME:
        raise ArmError(f"the arm's name '{name[:20]}…' is longer than {MAX_NAME} characters: shorten it")
    log, colon, rewards = paths.rpartition(":")
    if not colon or Path(paths).is_file():
        return name, Path(paths), None
    parts = paths.split(":")  # file names may contain colons, such as those of a time
    for pair in ((":".join(parts[:at]), ":".join(parts[at:])) for at in range(1, len(parts))):
        if all(Path(file).is_file() for file in pair):
            log, rewards = pair
    if not log or not rewards:
        raise ArmError(f"--arm '{text}' has no {'log before' if not log else 'rewards after'} its colon")
    return name, Path(log), Path(rewards)


def iter_episodes(log: Path, skipped: list[SkippedLine]) -> Iterator[Episode]:
    """Yields the episodes of a log, each id once; appends unusable lines to `skipped`.

    Raises:
        LogError: the log cannot be read.
        ArmError: the log contains no episode.
    """
    seen: set[str] = set()
    for episode in iter_log(log, skipped.append):
        if episode.id not in seen:
            seen.add(episode.id)
            yield episode
    if not seen:
        first = skipped[0] if skipped else None
        raise ArmError(
            f"{log} contains no episode" + (f" (line {first.line}: {first.reason})" if first else "")
        )


def read_episodes(log: Path) -> tuple[list[Episode], list[SkippedLine]]:
    """Returns all episodes and the unusable lines; raises as `iter_episodes` does."""
    skipped: list[SkippedLine] = []
    return list(iter_episodes(log, skipped)), skipped


def load_arm(name: str, log: Path, rewards: Path | None = None) -> Arm:
    """Reads a log and its rewards; without a file of rewards it scores the episodes offline.

    Raises:
        LogError: the log cannot be read.
        RewardError: the rewards cannot be read.
        ArmError: every episode ended in an error, or the rewards belong to a different log.
    """
    episodes, skipped = read_episodes(log)
    if all(episode.stop_reason == "error" for episode in episodes):
        reason = episodes[0].error.message if episodes[0].error else "unknown"
        raise ArmError(f"every episode of {log} ended in an error (the first: {reason}): run it again")
    scored = read_rewards(rewards) if rewards else {r.episode_id: r for r in score_log(episodes)}
    ids = {episode.id for episode in episodes}
    matched = {key: reward for key, reward in scored.items() if key in ids}
    if not matched:
        raise ArmError(
            f"no reward in {rewards} belongs to an episode of {log}: score it with `ascl-eval score {log}`"
        )
    with log.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Arm(name, log, rewards, digest, episodes, skipped, matched, len(scored) - len(matched))
