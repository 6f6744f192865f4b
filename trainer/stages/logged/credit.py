"""Advantages of each token of a logged episode, by one code path for all methods.

A method is a reward and a weighting: `ifpo` weights modes by inverse frequency, `grpo` weights them equally,
and `grpo+cost` does so after subtracting a cost per consultation. The other settings (alpha, bound, baseline,
scaling) are those that `ascl-train prepare` wrote to the file of groups.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.episode import count_given_messages
from trainer.errors import TrainingError
from trainer.groups.parquet import given_messages_of, template_options_of
from trainer.ifpo import Floats, decision_ratios, ifpo_advantages, split_advantages, with_consultation_cost
from trainer.tokens import EpisodeTokens, RenderingError, call_opening, consult_probabilities

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig


MAX_LATE_SHARE = 0.05
"""Share of free episodes that may write before they decide. Above it, the tokens that open a call at the
beginning of a reply do not measure the probability of consulting."""
MAX_DEVIATIONS = 4.0
"""Standard deviations by which the number of consulting free episodes may differ from the expected one."""
MAX_DIFFERENCE, MAX_FACTOR = 0.25, 5.0
"""Larger differences and ratios than these between measured and observed probability are errors."""
_MIN_VARIANCE = 0.3  # of a count: one or two unexpected episodes prove nothing


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


def is_late(tokenizer: Any, tokens: EpisodeTokens) -> bool:
    """Returns whether a policy wrote anything, such as thoughts, before the tokens that decide the mode."""
    return bool(tokenizer.decode(tokens.completion_ids[: tokens.decision[0]]).strip())


def disagreement(
    consult: dict[str, float], modes: list[str], forced: list[bool], groups: list[str]
) -> str | None:
    """Compares probabilities of consulting with what the free episodes did; returns None if they agree.

    They disagree if chance does not explain the difference, and it is large: above `MAX_DIFFERENCE`, or above
    `MAX_FACTOR` for the rarer mode.

    Args:
        consult: probability that the unforced policy consults, by group.
        modes, forced, groups: (N,) of the episodes.
    """
    free = [
        (mode, group) for mode, is_forced, group in zip(modes, forced, groups, strict=True) if not is_forced
    ]
    if not free:
        return None
    expected = sum(consult[group] for _, group in free)
    observed = sum(mode == "consult" for mode, _ in free)
    variance = sum(consult[group] * (1 - consult[group]) for _, group in free)
    count = len(free)
    factor = max(
        max(first, second) / min(first, second)
        for first, second in (
            (expected + 0.5, observed + 0.5),
            (count - expected + 0.5, count - observed + 0.5),
        )
    )
    is_chance = abs(observed - expected) <= MAX_DEVIATIONS * math.sqrt(variance + _MIN_VARIANCE)
    if is_chance or (abs(observed - expected) <= MAX_DIFFERENCE * count and factor <= MAX_FACTOR):
        return None
    return (
        f"the mean probability of consulting is {expected / count:.3f} by the tokens that open a call "
        f"(mode_probability 'decision'), but {observed} of {count} free episodes consulted "
        f"({observed / count:.2f}), so the weights of the decisions would be wrong: set mode_probability to "
        "'rate', or pass the checkpoint that sampled the episodes"
    )


def decision_weights(
    trainer: Any, tokenizer: Any, columns: dict[str, list[Any]], method: str, usable: list[int]
) -> tuple[dict[str, float], dict[int, float]]:
    """Computes each group's probability of consulting, and the ratio `rho` of each usable episode's decision.

    Args:
        usable: indices of the episodes that make up the groups.
        method: `decision`, the exact probability of opening a call under the starting checkpoint; or `rate`,
            the smoothed consult rate of the group's free episodes.

    Raises:
        TrainingError: the template cannot render a call, which `decision` needs; the probabilities by
            `decision` do not fit the free episodes; or every episode has a forced mode.
    """
    modes, groups = columns["mode"], columns["group_id"]
    forced = [bool(flag) for flag in columns["forced"]]
    if method == "rate":
        if all(forced):
            raise TrainingError(
                "the probability of consulting cannot be measured, because all episodes have a forced mode: "
                "sample again with mode shares that add up to less than 1"
            )
        consult = smoothed_consult_rates(modes, forced, groups)
    else:
        first = {group: index for index, group in reversed(list(enumerate(groups)))}
        try:
            openings = [
                call_opening(
                    tokenizer,
                    _before_reply(json.loads(columns["messages"][i]), given_messages_of(columns, i)),
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
        if problem := disagreement(consult, modes, forced, groups):
            raise TrainingError(problem)
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


def _before_reply(messages: list[dict[str, Any]], given: int | None) -> list[dict[str, Any]]:
    """Returns the messages before the first reply of an episode."""
    replies = (index for index, message in enumerate(messages) if message["role"] == "assistant")
    start = count_given_messages(messages, given)
    return messages[: next(index for index in replies if index >= start)]
