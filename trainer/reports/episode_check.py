"""An episode as the trainer sees it: tokens that contribute to the loss, log-probabilities, advantage."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from trainer.errors import GroupError
from trainer.groups.parquet import open_groups, template_options_of
from trainer.tokens import episode_tokens

MEMBER_COLUMNS = (
    "episode_id",
    "group_id",
    "mode",
    "forced",
    "reward",
    "weight",
    "advantage_ifpo",
    "advantage_grpo",
)
"""Columns that a `Member` is read from."""


@dataclass(frozen=True)
class Token:
    """A token as the trainer scores it."""

    id: int
    text: str
    wrote: bool
    """Whether the policy wrote the token. Only these tokens contribute to the loss."""
    logprob: float | None
    """Log-probability under the sampling policy; None if another wrote the token or it was not logged."""


@dataclass(frozen=True)
class Member:
    """An episode of a group, with its weight and advantages."""

    episode_id: str
    mode: str
    forced: bool
    reward: float
    weight: float
    advantage_ifpo: float
    advantage_grpo: float


@dataclass(frozen=True)
class CheckedEpisode:
    """An episode, its tokens and its group."""

    episode: Member
    kind: str | None
    prompt_id: str
    policy_version: str
    logged_tokens: bool
    """Whether the token ids come from the log. Otherwise they come from rendering its text."""
    tokens: list[Token]
    group: list[Member]

    def segments(self) -> list[tuple[str, list[Token]]]:
        """Returns runs of consecutive tokens of one role: `prompt`, `policy` or `masked`."""
        first = next((index for index, token in enumerate(self.tokens) if token.wrote), len(self.tokens))
        roles = [
            ("prompt" if index < first else "policy" if token.wrote else "masked", token)
            for index, token in enumerate(self.tokens)
        ]
        return [(role, [token for _, token in run]) for role, run in groupby(roles, key=lambda pair: pair[0])]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def check_episode(groups: Path, model: str, episode_id: str | None = None) -> CheckedEpisode:
    """Reads one episode of a groups file and tokenizes it as training does.

    Args:
        groups: groups file from `ascl-train prepare`.
        model: model whose tokenizer and chat template to use.
        episode_id: the episode; None for the first with a nonzero advantage.

    Raises:
        GroupError: the file cannot be read, or does not contain the episode.
        TokenError: the episode has no usable tokens; the message is the cause that training counts.
        TrainingError: the tokenizer cannot be loaded.
    """
    from trainer.stages.model_io import load_tokenizer

    row, group = _row_and_group(groups, episode_id)
    tokenizer = load_tokenizer(model)
    turns = json.loads(row["turns"])
    episode = episode_tokens(
        tokenizer,
        json.loads(row["messages"]),
        json.loads(row["tools"]),
        turns,
        forced=bool(row["forced"]),
        template_options=template_options_of(row),
        given=row["given_messages"],
    )
    prompt_length = len(episode.prompt_ids)
    ids = episode.prompt_ids + episode.completion_ids
    wrote = [False] * prompt_length + [bool(flag) for flag in episode.loss_mask]
    logprobs: list[float | None] = [None] * prompt_length
    logprobs += episode.logprobs if episode.logprobs is not None else [None] * len(episode.completion_ids)
    tokens = [
        Token(id, tokenizer.decode([id]), by_policy, logprob if by_policy else None)
        for id, by_policy, logprob in zip(ids, wrote, logprobs, strict=True)
    ]
    return CheckedEpisode(
        episode=next(member for member in group if member.episode_id == row["episode_id"]),
        kind=row["kind"],
        prompt_id=row["prompt_id"],
        policy_version=row["policy_version"],
        logged_tokens=all(turn.get("token_ids") for turn in turns) and bool(turns),
        tokens=tokens,
        group=group,
    )


def _row_and_group(groups: Path, episode_id: str | None) -> tuple[dict[str, Any], list[Member]]:
    """Reads an episode's row and the members of its group, one Parquet row group at a time."""
    import pyarrow.compute as pc

    with open_groups(groups) as (file, _):
        row_group, index = _locate(file, groups, episode_id)
        row = file.read_row_group(row_group).slice(index, 1).to_pylist()[0]
        members: list[Member] = []
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=list(MEMBER_COLUMNS))
            same_group = table.filter(pc.equal(table["group_id"], row["group_id"])).drop(["group_id"])
            members += [Member(**member) for member in same_group.to_pylist()]
    return row, members


def _locate(file: Any, groups: Path, episode_id: str | None) -> tuple[int, int]:
    """Returns the row group of an episode and its index there; None finds the first nonzero advantage."""
    import pyarrow.compute as pc

    column = "advantage_ifpo" if episode_id is None else "episode_id"
    for number in range(file.num_row_groups):
        values = file.read_row_group(number, columns=[column])[column]
        matches = pc.not_equal(values, 0.0) if episode_id is None else pc.equal(values, episode_id)
        if (index := pc.index(matches, True).as_py()) >= 0:
            return number, index
    if episode_id is None:
        return 0, 0
    examples = ", ".join(file.read_row_group(0, columns=["episode_id"])["episode_id"][:3].to_pylist())
    raise GroupError(f"{groups} has no episode '{episode_id}'; its first episodes are {examples}")
