"""One episode as the trainer sees it, so that a person can verify it: every token, whether it carries loss,
its log-probability, and how the episode's advantage came from its group.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from trainer.errors import GroupError
from trainer.groups.parquet import open_groups
from trainer.tokens import episode_tokens

NUMERIC_COLUMNS = (
    "episode_id",
    "group_id",
    "mode",
    "forced",
    "reward",
    "weight",
    "advantage_ifpo",
    "advantage_grpo",
)


@dataclass(frozen=True)
class Token:
    """One token as the trainer scores it."""

    id: int
    text: str
    wrote: bool
    """Whether the policy wrote it: only then it carries loss."""
    logprob: float | None
    """Under the policy that sampled; None where it did not write, or the log has none."""


@dataclass(frozen=True)
class Member:
    """One episode of a group, with what the group made of it."""

    episode_id: str
    mode: str
    forced: bool
    reward: float
    weight: float
    advantage_ifpo: float
    advantage_grpo: float


@dataclass(frozen=True)
class Checked:
    """An episode, its tokens and its group."""

    episode: Member
    kind: str | None
    prompt_id: str
    policy_version: str
    logged_tokens: bool
    """Whether the ids come from the log, rather than from rendering its text."""
    tokens: list[Token]
    group: list[Member]

    def segments(self) -> list[tuple[str, list[Token]]]:
        """Runs of tokens of one role: `prompt`, `policy` or `masked`."""
        first = next((place for place, token in enumerate(self.tokens) if token.wrote), len(self.tokens))
        roles = [
            ("prompt" if place < first else "policy" if token.wrote else "masked", token)
            for place, token in enumerate(self.tokens)
        ]
        return [(role, [token for _, token in run]) for role, run in groupby(roles, key=lambda pair: pair[0])]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check_episode(groups: Path, model: str, episode_id: str | None = None) -> Checked:
    """Look at one episode of a file of groups.

    Args:
        groups: written by `ascl-train prepare`.
        model: whose tokenizer and chat template to use.
        episode_id: which; None for the first whose advantage is not zero.

    Raises:
        GroupError: the file cannot be read, or has no such episode.
        TokenError: its tokens cannot be had; the text is the cause that training would count.
        TrainingError: the tokenizer cannot be loaded.
    """
    from trainer.stages.model_io import load_tokenizer

    row, group = _row_and_group(groups, episode_id)
    tokenizer = load_tokenizer(model)
    turns = json.loads(row["turns"])
    made = episode_tokens(
        tokenizer, json.loads(row["messages"]), json.loads(row["tools"]), turns, forced=bool(row["forced"])
    )
    before = len(made.prompt_ids)
    ids = made.prompt_ids + made.completion_ids
    wrote = [False] * before + [bool(flag) for flag in made.wrote]
    scores: list[float | None] = [None] * before
    scores += made.logprobs if made.logprobs is not None else [None] * len(made.completion_ids)
    tokens = [
        Token(id, tokenizer.decode([id]), here, score if here else None)
        for id, here, score in zip(ids, wrote, scores, strict=True)
    ]
    return Checked(
        episode=next(member for member in group if member.episode_id == row["episode_id"]),
        kind=row["kind"],
        prompt_id=row["prompt_id"],
        policy_version=row["policy_version"],
        logged_tokens=all(turn.get("token_ids") for turn in turns) and bool(turns),
        tokens=tokens,
        group=group,
    )


def _row_and_group(groups: Path, episode_id: str | None) -> tuple[dict[str, Any], list[Member]]:
    """The episode's row and the members of its group, a row group of the file in memory at a time."""
    import pyarrow.compute as pc

    with open_groups(groups) as (file, _):
        place = _place(file, groups, episode_id)
        row = file.read_row_group(place[0]).slice(place[1], 1).to_pylist()[0]
        members: list[Member] = []
        for number in range(file.num_row_groups):
            light = file.read_row_group(number, columns=list(NUMERIC_COLUMNS))
            same = light.filter(pc.equal(light["group_id"], row["group_id"])).drop(["group_id"])
            members += [Member(**member) for member in same.to_pylist()]
    return row, members


def _place(file: Any, groups: Path, episode_id: str | None) -> tuple[int, int]:
    """The row group of an episode, and its row there; of the first whose advantage is not zero for None."""
    import pyarrow.compute as pc

    column = "advantage_ifpo" if episode_id is None else "episode_id"
    for number in range(file.num_row_groups):
        values = file.read_row_group(number, columns=[column])[column]
        fits = pc.not_equal(values, 0.0) if episode_id is None else pc.equal(values, episode_id)
        if (row := pc.index(fits, True).as_py()) >= 0:
            return number, row
    if episode_id is None:
        return 0, 0
    some = ", ".join(file.read_row_group(0, columns=["episode_id"])["episode_id"][:3].to_pylist())
    raise GroupError(f"{groups} has no episode '{episode_id}': it starts with {some}")
