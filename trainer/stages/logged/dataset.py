"""Training rows of a replay: logged episodes as tokens, with log-probabilities and advantages.

`read_logged_groups` reads the file of groups, `build_dataset` selects and tokenises the episodes, and
`score_dataset` adds what needs the starting checkpoint. Episodes that cannot be used are counted by cause.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainingError
from trainer.groups.parquet import read_groups
from trainer.stages.logged.credit import (
    Credit,
    assign_credit,
    episode_decision_ratios,
    smoothed_consult_rates,
    token_advantages,
)
from trainer.stages.monitoring import Notify
from trainer.tokens import RenderingError, TokenError, call_opening, consult_probabilities, episode_tokens

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig

Columns = dict[str, list[Any]]
Rows = list[dict[str, Any]]

_EPISODE_COLUMNS = ("messages", "tools", "turns", "reward", "forced", "kind", "mode")
COLUMNS = (
    *(*_EPISODE_COLUMNS, "episode_id", "group_id", "consultations"),
    *("temperature", "template_options", "policy_version"),
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


@dataclass(frozen=True)
class LoggedDataset:
    """Episodes that a replay can train on, in the order of the file."""

    groups: LoggedGroups
    rows: Rows
    left_out: Counter[str]
    """Number of episodes left out, by cause."""
    details: tuple[str, ...] = ()
    """One example for each cause that needs an explanation."""

    def summary(self) -> str:
        """Describes the dataset in one line."""
        tokens = sum(sum(row["loss_mask"]) for row in self.rows)
        return (
            f"learning from {len(self.rows)} episodes with {tokens} tokens of the policy; "
            f"left out: {_format_causes(self.left_out) or 'none'}"
        )

    def record(self) -> dict[str, Any]:
        """Returns the field `data` of the run record."""
        return {
            "groups_sha256": self.groups.sha256,
            "policy_versions": self.groups.policy_versions,
            "episodes": len(self.rows),
            "left_out": dict(sorted(self.left_out.items())),
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
    """Computes the advantages, and tokenises the episodes that can be trained on.

    Raises:
        TrainingError: there is none.
    """
    credit = assign_credit(groups.columns, groups.settings, arguments, config)
    left_out: Counter[str] = Counter()
    details: dict[str, str] = {}
    rows = select_trainable(tokenizer, groups.columns, credit, arguments, left_out, details)
    if not rows:
        raise TrainingError(
            f"no episode in {arguments.groups} can be learnt from ({_format_causes(left_out)})"
            + "".join(f"; {detail}" for detail in details.values())
        )
    return LoggedDataset(groups, rows, left_out, tuple(details.values()))


def select_trainable(
    tokenizer: Any,
    columns: Columns,
    credit: Credit,
    arguments: LoggedArguments,
    left_out: Counter[str],
    details: dict[str, str],
) -> Rows:
    """Returns one row per episode that can be trained on, in the file's order; counts the others by cause.

    `logprobs` of a row is None where it must be computed. `details` receives an example of a cause, by cause,
    with the id of the episode.
    """
    rows = []
    is_zero = credit.is_zero
    for index, (messages, tools, turns, reward, forced, kind, mode) in enumerate(
        zip(*(columns[name] for name in _EPISODE_COLUMNS), strict=True)
    ):
        if not np.isfinite(reward):
            left_out["its reward is not a number"] += 1
            continue
        if is_zero[index]:
            left_out["no advantage"] += 1
            continue
        try:
            tokens = episode_tokens(
                tokenizer,
                json.loads(messages),
                json.loads(tools),
                json.loads(turns),
                forced=bool(forced),
                template_options=template_options_of(columns, index),
            )
        except TokenError as cause:
            left_out[str(cause)] += 1
            if cause.detail:
                details.setdefault(str(cause), f"episode {columns['episode_id'][index]}: {cause.detail}")
            continue
        if tokens.length > arguments.max_length:
            left_out[f"longer than {arguments.max_length} tokens"] += 1
            continue
        rows.append(
            {
                "episode": index,
                "prompt": tokenizer.decode(tokens.prompt_ids),
                "completion": tokenizer.decode(tokens.completion_ids),
                "prompt_ids": tokens.prompt_ids,
                "completion_ids": tokens.completion_ids,
                "loss_mask": tokens.loss_mask,
                "logprobs": tokens.logprobs,
                "kind": kind,
                "mode": mode,
                "decision": list(tokens.decision),
                "reward": reward,
                "advantage": float(credit.decision[index]),
                "rest_advantage": float(credit.rest[index]),
            }
        )
    return rows


def template_options_of(columns: Columns, index: int) -> dict[str, Any] | None:
    """Returns the `chat_template_kwargs` that an episode was sampled with; None if none were sent."""
    options = columns["template_options"][index]
    return json.loads(options) if options else None


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
        consult, ratios = decision_weights(trainer, tokenizer, columns, arguments.mode_probability)
        stratified = {
            "groups": len(consult),
            "mode_probability": arguments.mode_probability,
            "mean_consult_probability": round(sum(consult.values()) / len(consult), 4),
        }
    if stratified or arguments.credit == "split":
        rows = add_token_advantages(rows, ratios)
    return ScoredDataset(rows, off_policy, stratified)


def decision_weights(
    trainer: Any, tokenizer: Any, columns: Columns, method: str
) -> tuple[dict[str, float], Any]:
    """Computes each group's probability of consulting, and the (N,) ratios `rho` of the decisions.

    Args:
        method: `decision`, the exact probability of opening a call under the starting checkpoint; or `rate`,
            the smoothed consult rate of the group's free episodes.

    Raises:
        TrainingError: the template cannot render a call, which `decision` needs.
    """
    modes, groups = columns["mode"], columns["group_id"]
    forced = [bool(flag) for flag in columns["forced"]]
    if method == "rate":
        consult = smoothed_consult_rates(modes, forced, groups)
    else:
        first = {group: index for index, group in reversed(list(enumerate(groups)))}
        try:
            openings = [
                call_opening(
                    tokenizer,
                    _before_reply(json.loads(columns["messages"][i])),
                    json.loads(columns["tools"][i]),
                    template_options_of(columns, i),
                )
                for i in first.values()
            ]
        except RenderingError as cause:
            raise TrainingError(
                f"the probability of consulting cannot be measured by the tokens that open a call: {cause}; "
                "set mode_probability to 'rate'"
            ) from None
        batch_size = trainer.args.per_device_train_batch_size
        consult = dict(zip(first, consult_probabilities(trainer.logprobs, openings, batch_size), strict=True))
    return consult, episode_decision_ratios(consult, modes, forced, groups)


def add_token_advantages(rows: Rows, ratios: Any | None) -> Rows:
    """Returns the rows with an advantage per token; `ratios` are those of `decision_weights`, None for 1."""
    return [
        {
            **row,
            "token_advantages": token_advantages(row, 1.0 if ratios is None else ratios[row["episode"]]),
        }
        for row in rows
    ]


def to_dataset(rows: Rows) -> Any:
    """Converts rows to a `datasets.Dataset` with the columns that `LoggedIFPOTrainer` reads."""
    import datasets

    names = [name for name in _DATASET_COLUMNS if name in rows[0]]
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in names})


def _before_reply(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages before the first reply."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:first]


def _has_logprobs(turns: str) -> bool:
    return all(turn.get("logprobs") for turn in json.loads(turns))


def _format_causes(left_out: Counter[str]) -> str:
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
