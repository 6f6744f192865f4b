"""Advantages of each token of a logged episode, by one code path for all methods.

A method is a reward and a weighting: `ifpo` weights modes by inverse frequency, `grpo` weights them equally,
and `grpo+cost` does so after subtracting a cost per consultation. The other settings (alpha, bound, baseline,
scaling) are those that `ascl-train prepare` wrote to the file of groups.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import TrainingError
from trainer.groups.parquet import template_options_of
from trainer.ifpo import Floats, decision_ratios, ifpo_advantages, split_advantages, with_consultation_cost
from trainer.tokens import RenderingError, call_opening, consult_probabilities

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig


@dataclass(frozen=True)
class Credit:
    """(N,) advantages of the tokens up to the decision, and of those after it; NaN without a reward."""

    decision: Floats
    rest: Floats

    @property
    def is_zero(self) -> Any:
        """(N,) whether an episode has no advantage anywhere."""
        return (np.nan_to_num(self.decision) == 0) & (np.nan_to_num(self.rest) == 0)


def assign_credit(
    columns: dict[str, list[Any]],
    settings: dict[str, Any],
    arguments: LoggedArguments,
    config: LoggedConfig,
) -> Credit:
    """Computes the advantages of the episodes of a file of groups.

    Args:
        columns: `reward`, `mode`, `group_id` and `consultations` of the file.
        settings: advantage settings of the file: `alpha`, `w_max`, `baseline` and so on.
        arguments: `method` and `credit` of the run.
        config: `cost` and `frequency` of the run; the scope of `batch` is the whole file.
    """
    reward = np.array(columns["reward"], dtype=float)
    rated = np.isfinite(reward)
    mode, group, counts = (np.array(columns[name])[rated] for name in ("mode", "group_id", "consultations"))
    net_reward = reward[rated]
    options = {**settings, "frequency": config.frequency}
    if arguments.method != "ifpo":
        options["alpha"] = 0.0
    if arguments.method == "grpo+cost":
        net_reward = with_consultation_cost(net_reward, counts, config.cost)
    decision, rest = np.full(len(reward), np.nan), np.full(len(reward), np.nan)
    if arguments.credit == "split":
        decision[rated], rest[rated] = split_advantages(net_reward, mode, group, **options)
    else:
        decision[rated] = rest[rated] = ifpo_advantages(net_reward, mode, group, **options)
    return Credit(decision, rest)


def token_advantages(row: dict[str, Any], ratio: float = 1.0) -> list[float]:
    """Returns the (C,) advantages of a row: `advantage * ratio` up to the end of the decision, then
    `rest_advantage`.

    Thoughts before a decision are sampled together with it. In a stratified group, the thoughts that lead to
    a forced mode are over-represented as much as the mode is, so they carry its ratio too.
    """
    last = row["decision"][1]
    length = len(row["completion_ids"])
    return [ratio * row["advantage"]] * last + [row["rest_advantage"]] * (length - last)


def smoothed_consult_rates(modes: list[str], forced: list[bool], groups: list[str]) -> dict[str, float]:
    """Computes the consult rate of each group's free episodes, smoothed by half an episode of each mode."""
    free: dict[str, list[bool]] = {group: [] for group in groups}
    for mode, is_forced, group in zip(modes, forced, groups, strict=True):
        if not is_forced:
            free[group].append(mode == "consult")
    return {group: (sum(consulted) + 0.5) / (len(consulted) + 1) for group, consulted in free.items()}


def episode_decision_ratios(
    consult: dict[str, float], modes: list[str], forced: list[bool], groups: list[str]
) -> Floats:
    """Computes the (N,) ratios `rho` of the episodes' decisions, see `trainer.ifpo.decision_ratios`.

    Args:
        consult: probability that the unforced policy consults, by group.
        modes, forced, groups: (N,) of the episodes.
    """
    probability = [
        consult[group] if mode == "consult" else 1 - consult[group]
        for mode, group in zip(modes, groups, strict=True)
    ]
    ratios: Floats = decision_ratios(
        np.clip(probability, 0.0, 1.0), np.array(modes), np.array(forced, dtype=float), np.array(groups)
    )
    return ratios


def decision_weights(
    trainer: Any, tokenizer: Any, columns: dict[str, list[Any]], method: str, usable: list[int]
) -> tuple[dict[str, float], dict[int, float]]:
    """Computes each group's probability of consulting, and the ratio `rho` of each usable episode's decision.

    Args:
        usable: indices of the episodes that make up the groups.
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
    ratios = episode_decision_ratios(
        consult, [modes[i] for i in usable], [forced[i] for i in usable], [groups[i] for i in usable]
    )
    return consult, dict(zip(usable, ratios.tolist(), strict=True))


def add_token_advantages(rows: list[dict[str, Any]], ratios: dict[int, float] | None) -> list[dict[str, Any]]:
    """Returns the rows with an advantage per token; `ratios` are those of `decision_weights`, None for 1."""
    return [
        {
            **row,
            "token_advantages": token_advantages(row, 1.0 if ratios is None else ratios[row["episode"]]),
        }
        for row in rows
    ]


def _before_reply(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages before the first reply."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:first]
