"""Reads an episode log and its rewards together in one pass, in little memory.

A log of a million episodes is gigabytes of text, but computing groups needs only a few fields. Those are
decoded; conversations, tools and turns stay raw bytes. `ascl-eval score` writes rewards in the order of the
log, so normally one episode and one reward are in memory at a time. Rewards in another order are held until
their episode is read, as are all rewards that follow an episode without a reward.
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

NonEmptyStr = Annotated[str, msgspec.Meta(min_length=1)]
Mode = Literal["consult", "direct"]


class LoggedTurn(msgspec.Struct, gc=False):
    """The fields of a turn that training reads."""

    finish_reason: str | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw(b"null")
    token_ids: msgspec.Raw = msgspec.Raw(b"null")
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class LoggedConsultation(msgspec.Struct, gc=False):
    """The fields of a consultation that training reads."""

    error: str | None = None


class LoggedEpisode(msgspec.Struct, gc=False):
    """The fields of `agent.Episode` that groups need. A line without a required field is not an episode."""

    id: NonEmptyStr
    group_id: NonEmptyStr
    prompt_id: NonEmptyStr
    prompt: str
    model_requested: str
    policy_version: str
    sampling_sent: dict[str, Any]
    prompt_digest: str
    messages: msgspec.Raw
    mode: Mode
    stop_reason: Literal["answer", "limit", "refused", "error"]
    # The field that version 2 added (the API) is not read here, so a line of version 1 needs no migration.
    schema_version: Literal[1, 2] = 2
    kind: str | None = None
    rulebook_digest: str | None = None
    tool_schema_digest: str | None = None
    tool_mode: str = "native"
    source: str = "agent"
    given_messages: int | None = None
    sample_index: int = 0
    started_at: str = ""
    seconds: float = 0.0
    mode_forced: bool = False
    tools: msgspec.Raw = msgspec.Raw(b"[]")
    turns: list[LoggedTurn] = []
    consultations: list[LoggedConsultation] = []

    def content_hash(self, messages: str) -> int:
        """Returns a hash of the conversation and its times, equal for copies under several ids.

        Args:
            messages: text of the field `messages`.
        """
        return hash((self.sample_index, self.started_at, self.seconds, messages))

    def settings_hash(self) -> int:
        """Returns a hash of the fields that are equal for all episodes drawn from one distribution."""
        sampling = self.sampling_sent
        if "seed" in sampling:  # differs between samples without changing the distribution
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
    """The fields of `evaluation.scorers.rewards.Reward` that groups need."""

    episode_id: NonEmptyStr
    total: float | None
    excluded: str | None = None
    corrected: bool = False
    schema_version: Literal[1] = 1


REWARDED_IDS = [("id", "i8")]
"""Record fields: the hash of the episode id of every reward, to detect two rewards of one episode."""
_BATCH_SIZE = 65536
_LIST_START = ord("[")
_episode_decoder = msgspec.json.Decoder(LoggedEpisode)
_reward_decoder = msgspec.json.Decoder(LoggedReward)


class LogReader:
    """Iterates over the episodes of a log with their rewards, in log order.

    Raises, during iteration:
        agent.LogError: the log cannot be read.
        RewardError: the rewards cannot be read, or contain two rewards of one episode.
    """

    def __init__(self, log: Path, rewards: Path, rewarded_ids: Partitions) -> None:
        self.invalid_lines = 0
        """Number of log lines that are not an episode."""
        self._log, self._rewards_path = log, rewards
        self._rewards = self._read_rewards()
        self._pending: dict[str, LoggedReward] = {}
        self._rewarded_ids, self._hashes = rewarded_ids, array("q")

    def __iter__(self) -> Iterator[tuple[LoggedEpisode, LoggedReward | None]]:
        for _, line in numbered_lines(self._log):
            try:
                episode = _decode_episode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.invalid_lines += 1
                continue
            yield episode, self._reward_of(episode.id)
        for _ in self._rewards:  # read the rest, so that duplicates are detected
            pass
        self._check_duplicates()

    def _reward_of(self, id: str) -> LoggedReward | None:
        if id in self._pending:
            return self._pending.pop(id)
        for reward in self._rewards:
            if reward.episode_id == id:
                return reward
            self._pending[reward.episode_id] = reward
        return None

    def _read_rewards(self) -> Iterator[LoggedReward]:
        if not self._rewards_path.is_file():
            raise RewardError(
                f"the rewards file '{self._rewards_path}' does not exist: write it with "
                f"`ascl-eval score LOG --out {self._rewards_path}`"
            )
        for number, line in numbered_lines(self._rewards_path):
            try:
                reward = _reward_decoder.decode(line or b"")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RewardError(f"{self._rewards_path}:{number}: not a reward ({error})") from None
            self._hashes.append(hash(reward.episode_id))
            if len(self._hashes) == _BATCH_SIZE:
                self._flush_hashes()
            yield reward

    def _flush_hashes(self) -> None:
        hashes, self._hashes = np.array(self._hashes), array("q")
        self._rewarded_ids.add(hashes, id=hashes)

    def _check_duplicates(self) -> None:
        self._flush_hashes()
        duplicates: set[int] = set()
        for index in range(len(self._rewarded_ids)):
            ids = np.sort(self._rewarded_ids.read(index)["id"])
            duplicates.update(ids[1:][ids[1:] == ids[:-1]].tolist())
        if not duplicates:
            return
        for number, line in numbered_lines(self._rewards_path):
            id = _reward_decoder.decode(line or b"").episode_id
            if hash(id) in duplicates:
                raise RewardError(f"{self._rewards_path}:{number}: one of two rewards of the episode '{id}'")


def _decode_episode(line: bytes | None) -> LoggedEpisode:
    """Decodes a log line. Checks that messages and tools are lists, but not their contents."""
    if line is None:
        raise msgspec.DecodeError("the line is too long")
    episode: LoggedEpisode = _episode_decoder.decode(line)
    if memoryview(episode.messages)[0] != _LIST_START or memoryview(episode.tools)[0] != _LIST_START:
        raise msgspec.DecodeError("messages and tools must be lists")
    return episode
