"""A log and its rewards read once, side by side, in little memory.

A log of a million episodes is gigabytes of text, of which preparing groups needs a few fields. Those are
decoded; conversations, tools and turns stay the bytes that they are. Rewards lie in the order of their log,
as `ascl-eval score` writes them, so that one row of each is in hand at a time; rewards in any other order are
kept until their episode comes. So are all that follow the place of an episode without one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from agent.episode import numbered_lines
from evaluation.scorers import RewardError
from trainer.groups.partitions import Partitions

Name = Annotated[str, msgspec.Meta(min_length=1)]
Mode = Literal["consult", "direct"]


class LoggedTurn(msgspec.Struct, gc=False):
    """What training needs of a turn."""

    finish_reason: str | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw(b"null")
    token_ids: msgspec.Raw = msgspec.Raw(b"null")
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class LoggedConsultation(msgspec.Struct, gc=False):
    """What training needs of a consultation."""

    error: str | None = None


class LoggedEpisode(msgspec.Struct, gc=False):
    """The fields of `agent.Episode` that groups are made of; a line without one of them is no episode."""

    id: Name
    group_id: Name
    prompt_id: Name
    prompt: str
    model_requested: str
    policy_version: str
    sampling_sent: dict[str, Any]
    prompt_digest: str
    messages: msgspec.Raw
    mode: Mode
    stop_reason: Literal["answer", "limit", "refused", "error"]
    # What version 2 added (the API spoken) is not read here, so a line of version 1 needs no migration.
    schema_version: Literal[1, 2] = 2
    kind: str | None = None
    rulebook_digest: str | None = None
    tool_schema_digest: str | None = None
    tool_mode: str = "native"
    mode_forced: bool = False
    tools: msgspec.Raw = msgspec.Raw(b"[]")
    turns: list[LoggedTurn] = []
    consultations: list[LoggedConsultation] = []

    def setting(self) -> int:
        """A hash of what must be equal in a group, or its episodes were not drawn from one distribution."""
        sampling = self.sampling_sent
        if "seed" in sampling:  # which differs from sample to sample and changes no distribution
            sampling = {name: value for name, value in sampling.items() if name != "seed"}
        return hash(
            (
                self.prompt_id,
                self.kind,
                self.prompt,
                self.model_requested,
                self.policy_version,
                self.rulebook_digest,
                self.tool_schema_digest,
                self.prompt_digest,
                self.tool_mode,
                msgspec.json.encode(sampling, order="sorted"),
            )
        )


class LoggedReward(msgspec.Struct, gc=False):
    """The fields of `evaluation.rewards.Reward` that groups are made of."""

    episode_id: Name
    total: float | None
    excluded: str | None = None
    corrected: bool = False
    schema_version: Literal[1] = 1


REWARDED_IDS = [("id", "i8")]
"""Of every reward, the hash of its episode's id: an episode has one reward."""
_AT_ONCE = 65536
_LIST = ord("[")
_episode = msgspec.json.Decoder(LoggedEpisode)
_reward = msgspec.json.Decoder(LoggedReward)


class LogReader:
    """Every episode of a log with its reward, in the log's order.

    Raises, while it is iterated:
        agent.LogError: the log cannot be read.
        RewardError: the rewards cannot be read, or rate an episode twice.
    """

    def __init__(self, log: Path, rewards: Path, rated: Partitions) -> None:
        self.torn_lines = 0
        """Lines of the log that are no episode."""
        self._log, self._path = log, rewards
        self._rewards = self._read_rewards()
        self._waiting: dict[str, LoggedReward] = {}
        self._rated, self._hashes = rated, array("q")

    def __iter__(self) -> Iterator[tuple[LoggedEpisode, LoggedReward | None]]:
        for _, line in numbered_lines(self._log):
            try:
                episode = _decoded(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.torn_lines += 1
                continue
            yield episode, self._reward_of(episode.id)
        for _ in self._rewards:
            pass
        self._refuse_two_of_one()

    def _reward_of(self, id: str) -> LoggedReward | None:
        if id in self._waiting:
            return self._waiting.pop(id)
        for reward in self._rewards:
            if reward.episode_id == id:
                return reward
            self._waiting[reward.episode_id] = reward
        return None

    def _read_rewards(self) -> Iterator[LoggedReward]:
        if not self._path.is_file():
            raise RewardError(
                f"there is no file of rewards at '{self._path}': write it with "
                f"`ascl-eval score LOG --out {self._path}`"
            )
        for number, line in numbered_lines(self._path):
            try:
                reward = _reward.decode(line or b"")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RewardError(f"{self._path}:{number}: not a reward ({error})") from None
            self._hashes.append(hash(reward.episode_id))
            if len(self._hashes) == _AT_ONCE:
                self._put_away()
            yield reward

    def _put_away(self) -> None:
        hashes, self._hashes = np.array(self._hashes), array("q")
        self._rated.add(hashes, id=hashes)

    def _refuse_two_of_one(self) -> None:
        self._put_away()
        twice: set[int] = set()
        for part in range(len(self._rated)):
            rated = np.sort(self._rated.read(part)["id"])
            twice.update(rated[1:][rated[1:] == rated[:-1]].tolist())
        if not twice:
            return
        for number, line in numbered_lines(self._path):
            id = _reward.decode(line or b"").episode_id
            if hash(id) in twice:
                raise RewardError(f"{self._path}:{number}: one of two rewards of the episode '{id}'")


def _decoded(line: bytes | None) -> LoggedEpisode:
    """One line as an episode; its conversation and tools must be lists, whatever they hold."""
    if line is None:
        raise msgspec.DecodeError("too long")
    episode: LoggedEpisode = _episode.decode(line)
    if memoryview(episode.messages)[0] != _LIST or memoryview(episode.tools)[0] != _LIST:
        raise msgspec.DecodeError("messages and tools are lists")
    return episode
