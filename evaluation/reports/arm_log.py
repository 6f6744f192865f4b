"""An arm of a report: a named episode log with its rewards, read and checked together."""

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
    """What was logged under one name.

    `rewards_path` is None where the episodes were scored on reading; `strangers` counts rewards of episodes
    that the log does not hold.
    """

    name: str
    log: Path
    rewards_path: Path | None
    digest: str
    episodes: list[Episode]
    skipped: list[SkippedLine]
    rewards: dict[str, Reward]
    strangers: int

    def option(self) -> str:
        """The arm as it is written on the command line."""
        return f"{self.name}={self.log}" + (f":{self.rewards_path}" if self.rewards_path else "")


def parse_arm(text: str) -> tuple[str, Path, Path | None]:
    """Read `NAME=LOG` or `NAME=LOG:REWARDS`.

    Raises:
        ArmError: where a name or a log is missing, or the name is too long to head a column.
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
    parts = paths.split(":")  # names may hold colons, such as those of a time of day
    for pair in ((":".join(parts[:at]), ":".join(parts[at:])) for at in range(1, len(parts))):
        if all(Path(file).is_file() for file in pair):
            log, rewards = pair
    if not log or not rewards:
        raise ArmError(f"--arm '{text}' names no {'log' if not log else 'rewards'} beside its colon")
    return name, Path(log), Path(rewards)


def iter_episodes(log: Path, skipped: list[SkippedLine]) -> Iterator[Episode]:
    """The episodes of a log one by one, each id once; lines that could not be used go to `skipped`.

    Raises:
        LogError: when the log cannot be read.
        ArmError: when it holds no episode.
    """
    seen: set[str] = set()
    for episode in iter_log(log, skipped.append):
        if episode.id not in seen:
            seen.add(episode.id)
            yield episode
    if not seen:
        first = skipped[0] if skipped else None
        raise ArmError(f"{log} holds no episode" + (f" (line {first.line}: {first.reason})" if first else ""))


def read_episodes(log: Path) -> tuple[list[Episode], list[SkippedLine]]:
    """All of them at once, and the lines that could not be used; raises as `iter_episodes`."""
    skipped: list[SkippedLine] = []
    return list(iter_episodes(log, skipped)), skipped


def load_arm(name: str, log: Path, rewards: Path | None = None) -> Arm:
    """Read a log and its rewards; without a file of rewards the episodes are scored here, offline.

    Raises:
        LogError: when the log cannot be read.
        RewardError: when the rewards cannot.
        ArmError: when no episode of the log is the policy's, or the rewards are of another log.
    """
    episodes, skipped = read_episodes(log)
    if all(episode.stop_reason == "error" for episode in episodes):
        reason = episodes[0].error.message if episodes[0].error else "unknown"
        raise ArmError(
            f"every episode of {log} ended in an error of ours (the first: {reason}): run it again"
        )
    scored = read_rewards(rewards) if rewards else {r.episode_id: r for r in score_log(episodes)}
    ids = {episode.id for episode in episodes}
    own = {key: reward for key, reward in scored.items() if key in ids}
    if not own:
        raise ArmError(
            f"no reward in {rewards} is of an episode of {log}: score it with `ascl-eval score {log}`"
        )
    with log.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Arm(name, log, rewards, digest, episodes, skipped, own, len(scored) - len(own))
