"""On-policy training of the decision with one method and one seed: one gradient step per batch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.learning.decision.experiment.outcomes import Floats, random_numbers
from benchmarks.learning.decision.experiment.settings import Method, Training
from benchmarks.learning.decision.model.policy import DecisionPolicy, EncodedPrompts
from trainer.ifpo import (
    decision_ratios,
    ifpo_advantages,
    split_advantages,
    updated_multiplier,
    with_consultation_cost,
)


@dataclass(frozen=True)
class TrainingPrompts:
    """N training prompts."""

    encoded: EncodedPrompts
    kinds: list[str]
    chances: Floats
    """(N, 2) success probability of each mode: direct, consult."""
    gain: Floats
    """(N,) mean gain of consulting over answering directly, for the prompt's kind."""
    start: Floats
    """(N,) probability of consulting before training."""


@dataclass(frozen=True)
class ValidationPrompts:
    """Prompts that are watched during the training, for the floors. They are not trained on."""

    encoded: EncodedPrompts
    kinds: list[str]


def train(
    policy: DecisionPolicy,
    prompts: TrainingPrompts,
    validation: ValidationPrompts,
    training: Training,
    method: Method,
    seed: int,
    on_update: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Resets the policy's adapter and trains it in place. Returns a record for every update.

    With a floor, training that ends below it restores the last validated adapter above it. With a
    `harmful_floor`, each measurement of the validation prompts changes the weight of harmful prompts.

    Args:
        on_update: receives each record as soon as it exists.
    """
    policy.reset(seed)
    optimizer = torch.optim.AdamW(policy.trainable, lr=training.learning_rate, weight_decay=0.0)
    order = _batches(prompts.kinds, training, seed)
    records: list[dict[str, Any]] = []
    last_good: list[Tensor] | None = None
    multiplier = 1.0
    for update in range(training.updates):
        indices = next(order)
        warmup = min(1.0, (update + 1) / (training.warmup + 1))
        optimizer.param_groups[0]["lr"] = training.learning_rate * warmup * (1 - update / training.updates)
        record = {"update": update} | _step(
            policy, optimizer, prompts, indices, training, method, seed, update, multiplier
        )
        if (update + 1) % training.watch_every == 0 or update + 1 == training.updates:
            record["watched"] = mean_by_kind(
                policy.consult_probabilities(validation.encoded).numpy(), validation.kinds
            )
            if method.harmful_floor is not None:
                multiplier = _moved(multiplier, record["watched"]["harmful"], method, method.harmful_floor)
                record["multiplier"] = round(multiplier, 4)
            if training.floor is not None:
                if record["watched"]["harmful"] >= training.floor:
                    last_good = [parameter.detach().clone() for parameter in policy.trainable]
                elif update + 1 == training.updates and last_good is not None:
                    record["rolled_back"] = True
                    with torch.no_grad():
                        for parameter, value in zip(policy.trainable, last_good, strict=True):
                            parameter.copy_(value)
        records.append(record)
        if on_update is not None:
            on_update(record)
    return records


def _moved(multiplier: float, rate: float, method: Method, floor: float) -> float:
    """Returns the multiplier of harmful prompts after a measurement of their consult rate."""
    return float(
        updated_multiplier(
            multiplier, rate, floor=floor, step=method.multiplier_rate, largest=method.multiplier_max
        )
    )


def mean_by_kind(values: Any, kinds: Sequence[str]) -> dict[str, float]:
    """Returns the mean of the values by kind."""
    return {
        kind: round(
            float(np.mean([value for value, other in zip(values, kinds, strict=True) if other == kind])), 4
        )
        for kind in sorted(set(kinds))
    }


def _batches(kinds: list[str], training: Training, seed: int) -> Iterator[list[int]]:
    """Yields the indices of the prompts of each update. Every kind is reshuffled once it is used up."""
    rng = random.Random(seed)

    def endless(kind: str) -> Iterator[int]:
        indices = [index for index, other in enumerate(kinds) if other == kind]
        while True:
            rng.shuffle(indices)
            yield from indices

    streams = {kind: endless(kind) for kind in training.prompts}
    while True:
        yield [
            index
            for kind, count in training.prompts.items()
            for index in itertools.islice(streams[kind], count)
        ]


def _step(
    policy: DecisionPolicy,
    optimizer: torch.optim.Optimizer,
    prompts: TrainingPrompts,
    indices: list[int],
    training: Training,
    method: Method,
    seed: int,
    update: int,
    multiplier: float,
) -> dict[str, Any]:
    logp = policy.log_probabilities(prompts.encoded.select(indices))  # (n, V)
    consult = logp[:, policy.consult_token].detach().exp().double().numpy()
    batch = _sample(policy, logp.detach(), consult, prompts, indices, training, method, seed, update)
    if method.supervised:
        loss = _supervised_loss(logp[:, policy.consult_token], prompts.gain[indices])
    else:
        progress = update / max(1, training.updates - 1)
        harmful = np.array([prompts.kinds[index] == "harmful" for index in indices])[batch.groups]
        factors = torch.from_numpy(np.where(harmful, multiplier, 1.0)).float()
        weights = factors * _weights(batch, consult, method, progress)
        loss = -(weights * logp[batch.groups, batch.tokens]).mean()
    if method.kl:
        loss = loss + method.kl * _divergence(logp[:, policy.consult_token], prompts.start[indices]).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(policy.trainable, training.max_grad_norm)
    optimizer.step()
    both_modes = [len(set(batch.modes[batch.groups == group])) > 1 for group in range(len(indices))]
    return {
        "consult": mean_by_kind(consult, [prompts.kinds[index] for index in indices]),
        "reward": round(float(batch.rewards.mean()), 4),
        "both_modes": round(float(np.mean(both_modes)), 4),
        "gradient": round(float(norm), 5),
    }


def _weights(batch: _SampledEpisodes, consult: Floats, method: Method, progress: float) -> Tensor:
    """Returns (N,) the weight of each episode's log-probability: its advantage times the ratio of its
    decision.

    Args:
        progress: progress of the training, from 0 to 1.
    """
    end = method.alpha if method.alpha_end is None else method.alpha_end
    rewards = with_consultation_cost(
        batch.rewards, batch.modes, method.cost, groups=batch.groups, where=method.cost_where
    )
    # The rollout ends with the decision, so only the decision's part of split credit applies to tokens.
    compute = split_advantages if method.credit == "split" else ifpo_advantages
    advantages = compute(
        rewards,
        batch.modes,
        batch.groups,
        alpha=method.alpha + progress * (end - method.alpha),
        w_max=method.w_max,
        baseline=method.baseline,
        scale_rewards=method.scale_rewards,
        frequency=method.frequency,
    )
    if method.credit == "split":
        advantages, _ = advantages
    probability = np.where(batch.modes == 1, consult[batch.groups], 1 - consult[batch.groups])
    ratios = decision_ratios(probability, batch.modes, batch.forced, batch.groups)
    return torch.from_numpy(ratios * advantages).float()


def _supervised_loss(log_consult: Tensor, gain: Floats) -> Tensor:
    """Returns the negative log-likelihood of the mode with the higher reward."""
    p = log_consult.exp().clamp(1e-6, 1 - 1e-6)
    label = torch.from_numpy((gain > 0).astype(np.float32))
    return torch.nn.functional.binary_cross_entropy(p, label)


@dataclass(frozen=True)
class _SampledEpisodes:
    """N episodes: mode (1 consults), first token, forced or not, reward, and index of their prompt in the
    batch."""

    modes: Any
    tokens: Any
    forced: Any
    rewards: Floats
    groups: Any


def _sample(
    policy: DecisionPolicy,
    logp: Tensor,
    consult: Floats,
    prompts: TrainingPrompts,
    indices: list[int],
    training: Training,
    method: Method,
    seed: int,
    update: int,
) -> _SampledEpisodes:
    size = training.group
    free = size - method.forced_consult - method.forced_direct
    draws = np.stack([random_numbers(seed, update, index, size) for index in indices])  # (n, G, 3)
    modes = (draws[:, :, 0] < consult[:, None]).astype(np.int64)
    modes[:, free : free + method.forced_consult] = 1
    modes[:, free + method.forced_consult :] = 0
    others = logp.double().exp()
    others[:, policy.consult_token] = 0.0
    cumulative = others.cumsum(-1)
    thresholds = torch.from_numpy(draws[:, :, 1]) * cumulative[:, -1:]
    direct = torch.searchsorted(cumulative, thresholds, right=True).clamp_(max=logp.shape[1] - 1).numpy()
    tokens = np.where(modes == 1, policy.consult_token, direct)
    success = np.take_along_axis(prompts.chances[indices], modes, axis=1)  # (n, G)
    forced = np.zeros_like(modes, dtype=bool)
    forced[:, free:] = True
    return _SampledEpisodes(
        modes.ravel(),
        tokens.ravel(),
        forced.ravel(),
        (draws[:, :, 2] < success).astype(np.float64).ravel(),
        np.repeat(np.arange(len(indices)), size),
    )


def _divergence(log_consult: Tensor, start: Floats) -> Tensor:
    """Returns (n,) the Kullback-Leibler divergence of the current decision from the initial one."""
    p = log_consult.exp().clamp(1e-6, 1 - 1e-6)
    q = torch.from_numpy(start).to(p.dtype).clamp(1e-6, 1 - 1e-6)
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
