"""Training rows of a replay: logged episodes as tokens, with log-probabilities and advantages.

`read_logged_groups` reads the file of groups, `build_dataset` tokenises and selects the episodes, and
`score_dataset` adds what needs the starting checkpoint. Episodes that cannot be used are counted by cause.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainingError
from trainer.groups.exclusions import exclusion_remedies
from trainer.groups.parquet import given_messages_of, read_groups, template_options_of
from trainer.stages.logged.credit import (
    MAX_LATE_SHARE,
    Credit,
    add_token_advantages,
    assign_credit,
    decision_weights,
    is_late,
)
from trainer.stages.monitoring import Notify
from trainer.tokens import (
    EpisodeTokens,
    ModeLosses,
    TokenError,
    episode_tokens,
)

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig

Columns = dict[str, list[Any]]
Rows = list[dict[str, Any]]

_EPISODE_COLUMNS = ("messages", "tools", "turns", "reward", "forced", "kind", "mode")
COLUMNS = (
    *(*_EPISODE_COLUMNS, "episode_id", "group_id", "consultations"),
    *("temperature", "template_options", "started_at", "policy_version", "given_messages"),
)
"""Columns of the file of groups that training reads."""
_DATASET_COLUMNS = (
    *("prompt", "completion", "prompt_ids", "completion_ids", "loss_mask", "logprobs"),
    *("reward", "advantage", "kind", "mode", "decision", "token_advantages"),
)


@dataclass(frozen=True)
class LoggedGroups:
    """Contents of a file of groups."""

    columns: Columns
    settings: dict[str, Any]
    """Advantage settings of `ascl-train prepare`."""
    sources: Any
    """Logs and rewards that the file was made from."""
    sha256: str
    policy_versions: list[str]
    temperature: float
    """Sampling temperature of all episodes."""
    losses: ModeLosses
    """Episodes that `ascl-train prepare` left out, by cause and mode."""


@dataclass(frozen=True)
class LoggedDataset:
    """Episodes that a replay can train on, in the order of the file."""

    groups: LoggedGroups
    rows: Rows
    left_out: Counter[str]
    """Number of episodes left out, by cause."""
    losses: ModeLosses
    """Those that cannot be trained on, by mode; without those that have no advantage."""
    usable: list[int]
    """Indices of the episodes that make up the groups: those with an advantage, and those without."""
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

    def summary(self) -> str:
        """Describes the dataset in one line."""
        tokens = sum(sum(row["loss_mask"]) for row in self.rows)
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
            "left_out": dict(sorted(self.left_out.items())),
            "left_out_by_mode": self.losses.record(),
            "left_out_by_prepare": self.groups.losses.record(),
            "sources": self.groups.sources,
        }


@dataclass(frozen=True)
class ScoredDataset:
    """Rows in full batches, ready to train on, and the fields of the run record that describe them."""

    rows: Rows
    off_policy: dict[str, Any]
    stratified: dict[str, Any] | None
    """None without forced episodes."""


def read_logged_groups(arguments: LoggedArguments, notify: Notify) -> LoggedGroups:
    """Reads a file of groups.

    Raises:
        GroupError: the file cannot be read.
        TrainingError: several policies sampled it although `behaviour` is `model`, or several temperatures.
    """
    path = Path(arguments.groups)
    columns, description = read_groups(path, COLUMNS)
    versions = sorted(set(columns["policy_version"]))
    if len(versions) > 1 and arguments.behaviour == "model":
        raise TrainingError(
            f"the episodes were sampled by the policies {', '.join(versions)}, but the log-probabilities of "
            "one model cannot stand for several: prepare the log of one policy, or set behaviour to 'other' "
            "to accept the approximation"
        )
    return LoggedGroups(
        columns=columns,
        settings=description["settings"],
        sources=description["sources"],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        policy_versions=versions,
        temperature=single_temperature(columns["temperature"], notify),
        losses=ModeLosses.from_record(description["losses"]),
    )


def single_temperature(temperatures: list[float | None], notify: Notify) -> float:
    """Returns the temperature of all episodes; the trainer divides logits by it, as the sampler did.

    Where none was sent, it assumes 1, the default of most endpoints, and says so.

    Raises:
        TrainingError: the temperatures differ, or are 0.
    """
    if unknown := temperatures.count(None):
        notify(
            f"{unknown} episodes were sampled without a temperature: 1 is assumed, which is wrong for an "
            "endpoint with another default"
        )
    distinct = sorted({1.0 if value is None else value for value in temperatures})
    if len(distinct) > 1:
        raise TrainingError(
            f"the episodes were sampled at the temperatures {', '.join(map(str, distinct))}, but a run has "
            "one: prepare a log of one temperature"
        )
    if distinct[0] == 0:
        raise TrainingError(
            "the episodes were sampled at temperature 0, so they have no probabilities to learn: sample "
            "again at a temperature above 0"
        )
    return distinct[0]


def build_dataset(
    groups: LoggedGroups, tokenizer: Any, arguments: LoggedArguments, config: LoggedConfig
) -> LoggedDataset:
    """Tokenises the episodes, and computes the advantages of those that can be trained on.

    Groups are normalised without the episodes that are left out. Otherwise the rest of a group would keep
    advantages relative to episodes that are never trained on.

    Raises:
        TrainingError: there is none, or one mode loses much more of its episodes than the other.
    """
    usable, losses, details = tokenize_episodes(tokenizer, groups.columns, arguments)
    left_out = Counter({cause: counts.total() for cause, counts in losses.by_cause.items()})
    remedies = _remedies(losses, details, arguments)
    if problem := losses.problem(remedies):
        raise TrainingError(problem)
    rewards = [reward if i in usable else np.nan for i, reward in enumerate(groups.columns["reward"])]
    credit = assign_credit({**groups.columns, "reward": rewards}, groups.settings, arguments, config)
    rows = _to_rows(tokenizer, groups.columns, usable, credit)
    if no_advantage := len(usable) - len(rows):
        left_out["no advantage"] = no_advantage
    if not rows:
        raise TrainingError(
            f"no episode in {arguments.groups} can be learnt from ({_format_causes(left_out)})"
            + "".join(f"; {detail}" for detail in details.values())
        )
    notes = [note for note in (losses.warning(remedies), *details.values()) if note]
    free = [tokens for index, tokens in usable.items() if not groups.columns["forced"][index]]
    late = sum(is_late(tokenizer, tokens) for tokens in free)
    return LoggedDataset(
        groups, rows, left_out, losses, sorted(usable), tuple(notes), remedies, len(free), late
    )


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


def tokenize_episodes(
    tokenizer: Any, columns: Columns, arguments: LoggedArguments
) -> tuple[dict[int, EpisodeTokens], ModeLosses, dict[str, str]]:
    """Returns the tokens of the usable episodes by their index, and counts the others by cause and mode.

    The third value is an example of a cause, by cause, with the id of the episode.
    """
    usable: dict[int, EpisodeTokens] = {}
    losses, details = ModeLosses(), dict[str, str]()
    longest, too_long = 0, f"longer than {arguments.max_length} tokens"
    for index, (messages, tools, turns, reward, forced, _, mode) in enumerate(
        zip(*(columns[name] for name in _EPISODE_COLUMNS), strict=True)
    ):
        losses.totals[mode] += 1
        if not np.isfinite(reward):
            losses.leave_out("its reward is not a number", mode)
            continue
        try:
            tokens = episode_tokens(
                tokenizer,
                json.loads(messages),
                json.loads(tools),
                json.loads(turns),
                forced=bool(forced),
                template_options=template_options_of(columns, index),
                given=given_messages_of(columns, index),
            )
        except TokenError as cause:
            losses.leave_out(str(cause), mode)
            if cause.detail:
                details.setdefault(str(cause), f"episode {columns['episode_id'][index]}: {cause.detail}")
            continue
        if tokens.length > arguments.max_length:
            losses.leave_out(too_long, mode)
            longest = max(longest, tokens.length)
            details[too_long] = f"the longest episode has {longest} tokens: --max_length {longest} keeps all"
            continue
        usable[index] = tokens
    return usable, losses, details


def _remedies(losses: ModeLosses, details: dict[str, str], arguments: LoggedArguments) -> dict[str, str]:
    """Returns what the user can do about each cause."""
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


def _to_rows(tokenizer: Any, columns: Columns, usable: dict[int, EpisodeTokens], credit: Credit) -> Rows:
    """Returns one row per usable episode with an advantage, in the file's order.

    `logprobs` of a row is None where it must be computed.
    """
    is_zero = credit.is_zero
    return [
        {
            "episode": index,
            "prompt": tokenizer.decode(tokens.prompt_ids),
            "completion": tokenizer.decode(tokens.completion_ids),
            "prompt_ids": tokens.prompt_ids,
            "completion_ids": tokens.completion_ids,
            "loss_mask": tokens.loss_mask,
            "logprobs": tokens.logprobs,
            "kind": columns["kind"][index],
            "mode": columns["mode"][index],
            "decision": list(tokens.decision),
            "reward": columns["reward"][index],
            "advantage": float(credit.decision[index]),
            "rest_advantage": float(credit.rest[index]),
        }
        for index, tokens in usable.items()
        if not is_zero[index]
    ]


def pad_last_batch(rows: Rows, batch_size: int) -> Rows:
    """Fills the last batch with rows without loss or advantage; TRL would drop an incomplete batch."""
    shortest = min(rows, key=lambda row: len(row["prompt_ids"]) + len(row["completion_ids"]))
    zeros = [0] * len(shortest["loss_mask"])
    filler = {**shortest, "loss_mask": zeros, "logprobs": [float(zero) for zero in zeros]}
    filler |= {"advantage": 0.0, "rest_advantage": 0.0}
    return rows + [filler] * (-len(rows) % batch_size)


def score_dataset(
    dataset: LoggedDataset, trainer: Any, tokenizer: Any, arguments: LoggedArguments, notify: Notify
) -> ScoredDataset:
    """Adds what needs the starting checkpoint: missing log-probabilities and the weights of forced decisions.

    Args:
        trainer: `LoggedIFPOTrainer` with the starting weights.

    Raises:
        TrainingError: the logged log-probabilities are not those of the starting checkpoint.
    """
    from trainer.stages.logged.behaviour_logprobs import add_behaviour_logprobs, check_logprobs

    columns, rows = dataset.groups.columns, pad_last_batch(dataset.rows, trainer.args.generation_batch_size)
    missing = [row["episode"] for row in dataset.rows if row["logprobs"] is None]
    # The policy did not sample a forced decision, so logged log-probabilities of such an episode are not
    # used.
    forced = sum(columns["forced"][i] and _has_logprobs(columns["turns"][i]) for i in missing)
    text_only = len(missing) - forced
    difference = None
    if len(missing) < len(dataset.rows) and arguments.behaviour == "model" and arguments.check_logprobs:
        difference = check_logprobs(
            trainer, dataset.rows, arguments.check_logprobs, arguments.logprob_tolerance
        )
    if missing:
        cause = (
            "the log has no log-probabilities" if text_only else "forced episodes have no log-probabilities"
        )
        notify(f"{cause} of the policy: computing them with the starting checkpoint")
        rows = add_behaviour_logprobs(trainer, rows)
    off_policy = {
        "text_only_episodes": text_only,
        "forced_episodes": forced,
        "behaviour_logprobs": "recomputed with the starting checkpoint" if text_only else "logged",
        "largest_difference": difference,
    }
    ratios, stratified = None, None
    if any(columns["forced"]):
        method = arguments.mode_probability
        if method == "decision" and dataset.decides_late:
            method = "rate"
            notify(
                f"{dataset.late} of {dataset.free} free episodes think or write before they decide, so the "
                "tokens that open a call do not measure the probability of consulting: using the consult "
                "rate of the free episodes (mode_probability 'rate')"
            )
        consult, ratios = decision_weights(trainer, tokenizer, columns, method, dataset.usable)
        stratified = {
            "groups": len(consult),
            "mode_probability": method,
            "mean_consult_probability": round(sum(consult.values()) / len(consult), 4),
        }
    if stratified or arguments.credit == "split":
        rows = add_token_advantages(rows, ratios)
    return ScoredDataset(rows, off_policy, stratified)


def to_dataset(rows: Rows) -> Any:
    """Converts rows to a `datasets.Dataset` with the columns that `LoggedIFPOTrainer` reads."""
    import datasets

    names = [name for name in _DATASET_COLUMNS if name in rows[0]]
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in names})


def _has_logprobs(turns: str) -> bool:
    return all(turn.get("logprobs") for turn in json.loads(turns))


def _format_causes(left_out: Counter[str]) -> str:
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
