"""The rows that a replay learns from: logged episodes as tokens, each with what it carries.

What cannot be learnt from is left out and counted by its cause. `logprobs` is None where they must be
computed.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainingError
from trainer.stages.logged.credit import Credit, decision_ratios_of, smoothed_rates, token_advantages
from trainer.stages.progress import Notify
from trainer.tokens import TokenError, call_opening, consult_probabilities, episode_tokens

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments

_READ = ("messages", "tools", "turns", "reward", "forced", "kind", "mode")
COLUMNS = (*_READ, "group_id", "consultations", "temperature", "policy_version")


def select_trainable(
    tokenizer: Any,
    columns: dict[str, list[Any]],
    earned: Credit,
    arguments: LoggedArguments,
    left_out: Counter[str],
) -> list[dict[str, Any]]:
    """One row for each episode that can be learnt from, in the file's order."""
    rows = []
    nothing = earned.nothing
    for index, (messages, tools, turns, reward, forced, kind, mode) in enumerate(
        zip(*(columns[name] for name in _READ), strict=True)
    ):
        if not np.isfinite(reward):
            left_out["its reward is no number"] += 1
            continue
        if nothing[index]:
            left_out["no advantage"] += 1
            continue
        try:
            tokens = episode_tokens(
                tokenizer, json.loads(messages), json.loads(tools), json.loads(turns), forced=bool(forced)
            )
        except TokenError as cause:
            left_out[str(cause)] += 1
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
                "wrote": tokens.wrote,
                "logprobs": tokens.logprobs,
                "kind": kind,
                "mode": mode,
                "decision": list(tokens.decision),
                "reward": reward,
                "advantage": float(earned.decision[index]),
                "after": float(earned.rest[index]),
            }
        )
    return rows


def trim_to_full_batches(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Fill the last batch up with rows that carry neither loss nor advantage: TRL drops a batch that is not
    whole, and with it episodes."""
    shortest = min(rows, key=lambda row: len(row["prompt_ids"]) + len(row["completion_ids"]))
    zeros = [0] * len(shortest["wrote"])
    silent = {**shortest, "wrote": zeros, "logprobs": [float(zero) for zero in zeros]}
    silent |= {"advantage": 0.0, "after": 0.0}
    return rows + [silent] * (-len(rows) % size)


def decision_weights(
    trainer: Any, tokenizer: Any, columns: dict[str, list[Any]], how: str
) -> tuple[dict[str, float], Any]:
    """How likely the starting checkpoint consults in each group, and (N,) `rho` of every episode's decision.

    Args:
        how: `decision`, the exact probability of opening a call; `rate`, the smoothed rate of the group's
            free episodes.
    """
    modes, forced, groups = columns["mode"], [bool(made) for made in columns["forced"]], columns["group_id"]
    if how == "rate":
        consult = smoothed_rates(modes, forced, groups)
    else:
        first = {group: index for index, group in reversed(list(enumerate(groups)))}
        openings = [
            call_opening(
                tokenizer, _asked(json.loads(columns["messages"][i])), json.loads(columns["tools"][i])
            )
            for i in first.values()
        ]
        size = trainer.args.per_device_train_batch_size
        consult = dict(zip(first, consult_probabilities(trainer.logprobs, openings, size), strict=True))
    return consult, decision_ratios_of(consult, modes, forced, groups)


def with_token_advantages(rows: list[dict[str, Any]], weights: Any | None) -> list[dict[str, Any]]:
    """The rows with an advantage for each token; `weights` are those of `decision_weights`."""
    return [
        {
            **row,
            "token_advantages": token_advantages(row, 1.0 if weights is None else weights[row["episode"]]),
        }
        for row in rows
    ]


def _asked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands before the first reply."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:first]


def _one_temperature(given: list[float | None], say: Notify) -> float:
    """The trainer divides logits by it, as the sampler did; where none was sent, most endpoints use 1."""
    if unknown := given.count(None):
        say(
            f"{unknown} episodes were sampled without a temperature: 1 is assumed, which is wrong for an "
            "endpoint with another default"
        )
    temperatures = sorted({1.0 if value is None else value for value in given})
    if len(temperatures) > 1:
        raise TrainingError(
            f"the episodes were sampled at the temperatures {', '.join(map(str, temperatures))}, but a run "
            "has one: prepare a log of one temperature"
        )
    if temperatures[0] == 0:
        raise TrainingError(
            "the episodes were sampled at temperature 0, so there are no probabilities to learn"
        )
    return temperatures[0]


def _has_logprobs(turns: str) -> bool:
    return all(turn.get("logprobs") for turn in json.loads(turns))


def _dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    used = (
        "prompt",
        "completion",
        "prompt_ids",
        "completion_ids",
        "wrote",
        "logprobs",
        "reward",
        "advantage",
        "kind",
        "mode",
        "decision",
    )
    names = [name for name in (*used, "token_advantages") if name in rows[0]]
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in names})
