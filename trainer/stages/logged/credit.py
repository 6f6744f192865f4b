"""Advantages of each token of a logged episode, by one code path for all methods.

A method is a reward and a weighting: `ifpo` weights modes by inverse frequency, `grpo` weights them equally,
and `grpo+cost` does so after subtracting a cost per consultation. The other settings (alpha, bound, baseline,
scaling) are those that `ascl-train prepare` wrote to the file of groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agent.episode import count_given_messages
from trainer.errors import TrainingError
from trainer.groups.parquet import template_options_of
from trainer.ifpo import (
    Floats,
    decision_ratios,
    ifpo_advantages,
    probabilities_disagree,
    split_advantages,
    with_consultation_cost,
)
from trainer.tokens import EpisodeTokens, RenderingError, call_opening, consult_probabilities

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig


MAX_LATE_SHARE = 0.05
"""Share of free episodes that may write before they decide. Above it, the tokens that open a call at the
beginning of a reply do not measure the probability of consulting."""


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
    columns: Mapping[str, Any],
    settings: dict[str, Any],
    arguments: LoggedArguments,
    config: LoggedConfig,
) -> Credit:
    """Computes the advantages of the episodes of a file of groups.

    Args:
        columns: (N,) `reward`, `mode`, `group_id` and `consultations` of the file, lists or arrays.
        settings: advantage settings of the file: `alpha`, `w_max`, `baseline` and so on.
        arguments: `method` and `credit` of the run.
        config: `cost`, `consult_cost_where` and `frequency` of the run; the scope of `batch` is the whole
            file.
    """
    reward = np.array(columns["reward"], dtype=float)
    rated = np.isfinite(reward)
    mode, group, counts = (np.array(columns[name])[rated] for name in ("mode", "group_id", "consultations"))
    net_reward = reward[rated]
    options = {**settings, "frequency": config.frequency}
    if arguments.method != "ifpo":
        options["alpha"] = 0.0
    if arguments.method == "grpo+cost":
        net_reward = with_consultation_cost(
            net_reward,
            counts,
            config.cost,
            groups=group,
            where=config.consult_cost_where,  # type: ignore[arg-type]
        )
    decision, rest = np.full(len(reward), np.nan), np.full(len(reward), np.nan)
    if arguments.credit == "split":
        decision[rated], rest[rated] = split_advantages(net_reward, mode, group, **options)
    else:
        decision[rated] = rest[rated] = ifpo_advantages(net_reward, mode, group, **options)
    return Credit(decision, rest)


def smoothed_consult_rates(modes: list[str], forced: list[bool], groups: list[Any]) -> dict[Any, float]:
    """Computes the consult rate of each group's free episodes, smoothed by half an episode of each mode."""
    free: dict[Any, list[bool]] = {group: [] for group in groups}
    for mode, is_forced, group in zip(modes, forced, groups, strict=True):
        if not is_forced:
            free[group].append(mode == "consult")
    return {group: (sum(consulted) + 0.5) / (len(consulted) + 1) for group, consulted in free.items()}


def episode_decision_ratios(
    consult: dict[Any, float], modes: list[str], forced: list[bool], groups: list[Any]
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
    consult: dict[Any, float], modes: list[str], forced: list[bool], groups: list[Any]
) -> str | None:
    """Compares probabilities of consulting with what the free episodes did; returns None if they agree (see
    `trainer.ifpo.probabilities_disagree`).

    Args:
        consult: probability that the unforced policy consults, by group.
        modes, forced, groups: (N,) of the episodes.
    """
    free = [
        (mode, group) for mode, is_forced, group in zip(modes, forced, groups, strict=True) if not is_forced
    ]
    probability, consulted = [consult[group] for _, group in free], [mode == "consult" for mode, _ in free]
    if not probabilities_disagree(probability, consulted):
        return None
    expected, observed, count = sum(probability), sum(consulted), len(free)
    return (
        f"the mean probability of consulting is {expected / count:.3f} by the tokens that open a call "
        f"(mode_probability 'decision'), but {observed} of {count} free episodes consulted "
        f"({observed / count:.2f}), so the weights of the decisions would be wrong: set mode_probability to "
        "'rate', or pass the checkpoint that sampled the episodes"
    )


def decision_weights(
    trainer: Any,
    tokenizer: Any,
    columns: Mapping[str, Any],
    prompts: Callable[[], Iterable[Mapping[str, Any]]],
    method: str,
    usable: npt.NDArray[np.int64],
) -> tuple[dict[Any, float], Floats]:
    """Computes each group's probability of consulting, and the ratio `rho` of each usable episode's decision.

    Args:
        columns: (N,) `mode`, `forced` and `group_id` of the file.
        prompts: returns the `PROMPT_COLUMNS` of every episode, in the file's order.
        method: `decision`, the exact probability of opening a call under the starting checkpoint; or `rate`,
            the smoothed consult rate of the group's free episodes.
        usable: (U,) indices of the episodes that make up the groups.

    Returns:
        The probabilities by group, and (U,) ratios.

    Raises:
        TrainingError: the template cannot render a call, which `decision` needs; the probabilities by
            `decision` do not fit the free episodes; or every episode has a forced mode.
    """
    modes, forced, groups = (columns[name].tolist() for name in ("mode", "forced", "group_id"))
    if method == "rate":
        if all(forced):
            raise TrainingError(
                "the probability of consulting cannot be measured, because all episodes have a forced mode: "
                "sample again with mode shares that add up to less than 1"
            )
        consult = smoothed_consult_rates(modes, forced, groups)
    else:
        batch_size = trainer.args.per_device_train_batch_size
        openings = _group_openings(tokenizer, groups, prompts())
        consult = {}
        while batch := dict(islice(openings, batch_size)):
            probabilities = consult_probabilities(trainer.logprobs, list(batch.values()), batch_size)
            consult |= zip(batch, probabilities, strict=True)
        if problem := disagreement(consult, modes, forced, groups):
            raise TrainingError(problem)
    chosen = usable.tolist()
    ratios = episode_decision_ratios(
        consult, [modes[i] for i in chosen], [forced[i] for i in chosen], [groups[i] for i in chosen]
    )
    return consult, ratios


def _group_openings(
    tokenizer: Any, groups: list[Any], prompts: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Any, dict[str, list[int]]]]:
    """Yields each group with the row of `call_opening` for its first episode."""
    seen: set[Any] = set()
    for group, prompt in zip(groups, prompts, strict=True):
        if group in seen:
            continue
        seen.add(group)
        try:
            yield (
                group,
                call_opening(
                    tokenizer,
                    _before_reply(json.loads(prompt["messages"]), prompt["given_messages"]),
                    json.loads(prompt["tools"]),
                    template_options_of(prompt),
                ),
            )
        except RenderingError as cause:
            raise TrainingError(
                f"the probability of consulting cannot be measured by the tokens that open a call: {cause}; "
                "set mode_probability to 'rate'"
            ) from None


def _before_reply(messages: list[dict[str, Any]], given: int | None) -> list[dict[str, Any]]:
    """Returns the messages before the first reply of an episode."""
    replies = (index for index, message in enumerate(messages) if message["role"] == "assistant")
    start = count_given_messages(messages, given)
    return messages[: next(index for index in replies if index >= start)]
