"""Selects the episodes that a replay trains on, and computes their advantages.

`read_logged_groups` reads the groups file, `tokenize_once` writes the tokens of its usable episodes to a
file, `build_dataset` selects those with an advantage, and `score_dataset` adds what needs the starting
checkpoint. Episodes that cannot be used are counted by cause.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainingError
from trainer.groups.exclusions import exclusion_remedies
from trainer.stages.logged.credit import MAX_LATE_SHARE, Credit, assign_credit
from trainer.stages.logged.dataset.groups import LoggedGroups
from trainer.stages.logged.dataset.rows import TrainingRows
from trainer.stages.logged.dataset.tokenized import TokenizedEpisodes, tokenize_once
from trainer.tokens import ModeLosses
from trainer.tokens.modes import MODES

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig


@dataclass(frozen=True)
class LoggedDataset:
    """Episodes that a replay can train on, in the order of the file."""

    groups: LoggedGroups
    rows: TrainingRows
    left_out: Counter[str]
    """Number of episodes left out, by cause."""
    losses: ModeLosses
    """Episodes that cannot be trained on, by mode; excludes those that have no advantage."""
    episodes: TokenizedEpisodes
    """Episodes that make up the groups, with and without an advantage."""
    details: tuple[str, ...] = ()
    """A warning, and one example for each cause that needs an explanation."""
    remedies: dict[str, str] = field(default_factory=dict)
    """Remedy by cause of `losses`."""
    free: int = 0
    """Number of usable episodes whose mode was not forced."""
    late: int = 0
    """Number of these that wrote something, such as thoughts, before they decided."""

    @property
    def decides_late(self) -> bool:
        """Whether the tokens that open a call do not measure the probability of consulting."""
        return self.late > MAX_LATE_SHARE * self.free

    @property
    def usable(self) -> list[int]:
        """Positions in the file of the episodes that make up the groups."""
        positions: list[int] = self.episodes.index["episode"].tolist()
        return positions

    def summary(self) -> str:
        """Describes the dataset in one line."""
        tokens = int(self.rows.columns["loss_tokens"].sum())
        without = self.left_out["no advantage"]
        causes = [str(self.losses)] * bool(self.losses.by_cause) + [f"no advantage: {without}"] * bool(
            without
        )
        return (
            f"learning from {len(self.rows)} episodes with {tokens} tokens of the policy; "
            f"left out: {', '.join(causes) or 'none'}"
        )

    def record(self) -> dict[str, Any]:
        """Returns the field `data` of the run record."""
        return {
            "groups_sha256": self.groups.sha256,
            "policy_versions": self.groups.policy_versions,
            "episodes": len(self.rows),
            "advantage_sums": {
                mode: float(self.rows.columns["advantage"][self.rows.columns["mode"] == mode].sum())
                for mode in MODES
            },
            "left_out": dict(sorted(self.left_out.items())),
            "left_out_by_mode": self.losses.record(),
            "left_out_by_prepare": self.groups.losses.record(),
            "sources": self.groups.sources,
        }


def build_dataset(
    groups: LoggedGroups, tokenizer: Any, arguments: LoggedArguments, config: LoggedConfig
) -> LoggedDataset:
    """Tokenises the episodes, and computes the advantages of those that can be trained on.

    Groups are normalised without the episodes that are left out. Otherwise the rest of a group would keep
    advantages relative to episodes that are never trained on.

    Raises:
        TrainingError: there is none, or one mode loses much more of its episodes than the other.
    """
    episodes = tokenize_once(groups, tokenizer, arguments, config)
    losses, details = episodes.losses, episodes.details
    left_out = Counter({cause: counts.total() for cause, counts in losses.by_cause.items()})
    remedies = _remedies(losses, details, arguments)
    if problem := losses.problem(remedies):
        raise TrainingError(problem)
    usable = episodes.index["episode"]
    rewards = np.full(len(groups.columns["reward"]), np.nan)
    rewards[usable] = groups.columns["reward"][usable]
    credit = assign_credit({**groups.columns, "reward": rewards}, groups.settings, arguments, config)
    rows = _to_rows(tokenizer, groups, episodes, credit)
    if no_advantage := len(usable) - len(rows):
        left_out["no advantage"] = no_advantage
    if not len(rows):
        raise TrainingError(
            f"no episode in {arguments.groups} can be learnt from ({_format_causes(left_out)})"
            + "".join(f"; {detail}" for detail in details.values())
        )
    notes = [note for note in (losses.warning(remedies), *details.values()) if note]
    is_free = ~groups.columns["forced"][usable].astype(bool)
    free, late = int(is_free.sum()), int((is_free & episodes.index["late"]).sum())
    return LoggedDataset(groups, rows, left_out, losses, episodes, tuple(notes), remedies, free, late)


def check_mode_losses(dataset: LoggedDataset) -> str | None:
    """Compares what each mode lost in `ascl-train prepare` and here together. Returns a warning, or None.

    Raises:
        TrainingError: one mode loses much more of its episodes than the other, see `ModeLosses.problem`.
    """
    losses = dataset.losses.after(dataset.groups.losses)
    remedies = {**exclusion_remedies(dataset.groups.losses.by_cause), **dataset.remedies}
    if problem := losses.problem(remedies):
        raise TrainingError(problem)
    return losses.warning(remedies) if dataset.groups.losses.by_cause else None


def _remedies(losses: ModeLosses, details: dict[str, str], arguments: LoggedArguments) -> dict[str, str]:
    """Returns a remedy for each cause that has one."""
    remedies = {
        cause: f"check the chat template with `ascl-train check {arguments.groups} --model {arguments.model} "
        "--episode ID`, or sample from an endpoint that returns token ids"
        for cause in losses.by_cause
        if "template" in cause
    }
    too_long = f"longer than {arguments.max_length} tokens"
    if too_long in details:
        remedies[too_long] = f"raise --max_length; {details[too_long]}"
    return remedies


def _to_rows(
    tokenizer: Any, groups: LoggedGroups, episodes: TokenizedEpisodes, credit: Credit
) -> TrainingRows:
    """Returns one row per usable episode with an advantage, in the file's order."""
    index = episodes.index
    chosen = np.flatnonzero(~credit.is_zero[index["episode"]])
    position = index["episode"][chosen]
    columns = {name: index[name][chosen] for name in ("length", "loss_tokens", "has_logprobs")}
    columns |= {name: groups.columns[name][position] for name in ("reward", "kind", "mode")}
    columns |= {
        "row": chosen,
        "episode": position,
        "decision": np.stack([index["decision_start"], index["decision_end"]], axis=1)[chosen],
        "advantage": credit.decision[position],
        "rest_advantage": credit.rest[position],
    }
    return TrainingRows(episodes.tokens, columns, tokenizer.decode)


def _format_causes(left_out: Counter[str]) -> str:
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
