"""Train the decision with one method and one seed, on-policy, one gradient step a batch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.learning.decision.experiment.outcomes import Floats, random_numbers
from benchmarks.learning.decision.experiment.settings import Method, Training
from benchmarks.learning.decision.model.policy import DecisionPolicy, EncodedPrompts
from trainer.ifpo import decision_ratios, ifpo_advantages, split_advantages, with_consultation_cost


@dataclass(frozen=True)
class TrainingPrompts:
    """N training prompts: their states, kinds and the chances of success of each mode (N, 2)."""

    encoded: EncodedPrompts
    kinds: list[str]
    chances: Floats
    gain: Floats
    """(N,) what consulting earns on average for its kind, above answering directly."""
    start: Floats
    """(N,) how likely each was to be consulted about before training."""


@dataclass(frozen=True)
class ValidationPrompts:
    """Prompts that are neither learnt from nor reported on: whether to keep what an update did."""

    encoded: EncodedPrompts
    kinds: list[str]


def train(
    policy: DecisionPolicy,
    learnt: TrainingPrompts,
    watched: ValidationPrompts,
    training: Training,
    method: Method,
    seed: int,
) -> list[dict[str, Any]]:
    """Change the policy's adapter in place, from its first values; a record for every update.

    With a floor, the adapter goes back to the last watched state above it when the training ends below it.
    """
    policy.reset(seed)
    optimizer = torch.optim.AdamW(policy.trainable, lr=training.learning_rate, weight_decay=0.0)
    order = _batches(learnt.kinds, training, seed)
    records: list[dict[str, Any]] = []
    kept: list[Tensor] | None = None
    for update in range(training.updates):
        places = next(order)
        warm = min(1.0, (update + 1) / (training.warmup + 1))
        optimizer.param_groups[0]["lr"] = training.learning_rate * warm * (1 - update / training.updates)
        record = {"update": update} | _step(policy, optimizer, learnt, places, training, method, seed, update)
        if (update + 1) % training.watch_every == 0 or update + 1 == training.updates:
            record["watched"] = mean_by_kind(
                policy.consult_probabilities(watched.encoded).numpy(), watched.kinds
            )
            if training.floor is not None:
                if record["watched"]["harmful"] >= training.floor:
                    kept = [parameter.detach().clone() for parameter in policy.trainable]
                elif update + 1 == training.updates and kept is not None:
                    record["rolled_back"] = True
                    with torch.no_grad():
                        for parameter, value in zip(policy.trainable, kept, strict=True):
                            parameter.copy_(value)
        records.append(record)
    return records


def mean_by_kind(values: Any, kinds: Sequence[str]) -> dict[str, float]:
    """The mean of values by kind."""
    return {
        kind: round(
            float(np.mean([value for value, its in zip(values, kinds, strict=True) if its == kind])), 4
        )
        for kind in sorted(set(kinds))
    }


def _batches(kinds: list[str], training: Training, seed: int) -> Iterator[list[int]]:
    """Places of the prompts of each update; every kind goes round in an order shuffled anew each time."""
    chance = random.Random(seed)

    def endless(kind: str) -> Iterator[int]:
        places = [place for place, its in enumerate(kinds) if its == kind]
        while True:
            chance.shuffle(places)
            yield from places

    streams = {kind: endless(kind) for kind in training.prompts}
    while True:
        yield [
            place
            for kind, count in training.prompts.items()
            for place in itertools.islice(streams[kind], count)
        ]


def _step(
    policy: DecisionPolicy,
    optimizer: torch.optim.Optimizer,
    learnt: TrainingPrompts,
    places: list[int],
    training: Training,
    method: Method,
    seed: int,
    update: int,
) -> dict[str, Any]:
    logp = policy.log_probabilities(learnt.encoded.select(places))  # (n, V)
    consult = logp[:, policy.consult_token].detach().exp().double().numpy()
    batch = _sample(policy, logp.detach(), consult, learnt, places, training, method, seed, update)
    if method.supervised:
        loss = _supervised_loss(logp[:, policy.consult_token], learnt.gain[places])
    else:
        loss = -(_weights(batch, consult, method) * logp[batch.groups, batch.tokens]).mean()
    if method.kl:
        loss = loss + method.kl * _divergence(logp[:, policy.consult_token], learnt.start[places]).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(policy.trainable, training.max_grad_norm)
    optimizer.step()
    both = [len(set(batch.modes[batch.groups == group])) > 1 for group in range(len(places))]
    return {
        "consult": mean_by_kind(consult, [learnt.kinds[place] for place in places]),
        "reward": round(float(batch.rewards.mean()), 4),
        "both_modes": round(float(np.mean(both)), 4),
        "gradient": round(float(norm), 5),
    }


def _weights(batch: _SampledEpisodes, consult: Floats, method: Method) -> Tensor:
    """(N,) what each episode's log-probability is multiplied with: its advantage and its decision's ratio."""
    rewards = with_consultation_cost(batch.rewards, batch.modes, method.cost)
    # The rollout ends with the decision, so of split credit only the decision's part has tokens to carry it.
    given = split_advantages if method.credit == "split" else ifpo_advantages
    advantages = given(
        rewards,
        batch.modes,
        batch.groups,
        alpha=method.alpha,
        w_max=method.w_max,
        baseline=method.baseline,
        scale_rewards=method.scale_rewards,
        frequency=method.frequency,
    )
    if method.credit == "split":
        advantages, _ = advantages
    chance = np.where(batch.modes == 1, consult[batch.groups], 1 - consult[batch.groups])
    ratios = decision_ratios(chance, batch.modes, batch.forced, batch.groups)
    return torch.from_numpy(ratios * advantages).float()


def _supervised_loss(log_consult: Tensor, gain: Floats) -> Tensor:
    """The negative log-likelihood of the mode that earns more."""
    p = log_consult.exp().clamp(1e-6, 1 - 1e-6)
    label = torch.from_numpy((gain > 0).astype(np.float32))
    return torch.nn.functional.binary_cross_entropy(p, label)


@dataclass(frozen=True)
class _SampledEpisodes:
    """N episodes: mode (1 consults), first token, whether forced, outcome, and the place of their prompt."""

    modes: Any
    tokens: Any
    forced: Any
    rewards: Floats
    groups: Any


def _sample(
    policy: DecisionPolicy,
    logp: Tensor,
    consult: Floats,
    learnt: TrainingPrompts,
    places: list[int],
    training: Training,
    method: Method,
    seed: int,
    update: int,
) -> _SampledEpisodes:
    size = training.group
    free = size - method.forced_consult - method.forced_direct
    drawn = np.stack([random_numbers(seed, update, place, size) for place in places])  # (n, G, 3)
    modes = (drawn[:, :, 0] < consult[:, None]).astype(np.int64)
    modes[:, free : free + method.forced_consult] = 1
    modes[:, free + method.forced_consult :] = 0
    others = logp.double().exp()
    others[:, policy.consult_token] = 0.0
    heaped = others.cumsum(-1)
    sought = torch.from_numpy(drawn[:, :, 1]) * heaped[:, -1:]
    direct = torch.searchsorted(heaped, sought, right=True).clamp_(max=logp.shape[1] - 1).numpy()
    tokens = np.where(modes == 1, policy.consult_token, direct)
    chance = np.take_along_axis(learnt.chances[places], modes, axis=1)  # (n, G)
    forced = np.zeros_like(modes, dtype=bool)
    forced[:, free:] = True
    return _SampledEpisodes(
        modes.ravel(),
        tokens.ravel(),
        forced.ravel(),
        (drawn[:, :, 2] < chance).astype(np.float64).ravel(),
        np.repeat(np.arange(len(places)), size),
    )


def _divergence(log_consult: Tensor, start: Floats) -> Tensor:
    """(n,) Kullback-Leibler divergence of the decision now from the decision at the start."""
    p = log_consult.exp().clamp(1e-6, 1 - 1e-6)
    q = torch.from_numpy(start).to(p.dtype).clamp(1e-6, 1 - 1e-6)
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
