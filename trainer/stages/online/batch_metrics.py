"""Metrics of a batch of episodes: consult rates, rewards, composition of the groups, weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PREFIX = "ifpo"


class BatchRecord:
    """Collects the episodes of several batches, so that metrics cover all episodes.

    Means of the batches' means would weight an episode by the size of its batch.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._kinds: list[str | None] = []
        self._columns: list[tuple[Any, ...]] = []
        self._groups = 0

    def add(
        self,
        kinds: Sequence[str | None],
        consulted: Any,
        rewards: Any,
        groups: Any,
        weights: Any,
        free: Any = None,
        safe: Any = None,
    ) -> None:
        """Adds a batch; the arguments are those of `batch_metrics`. Its groups must not occur in another
        batch."""
        group = np.unique(np.asarray(groups), return_inverse=True)[1] + self._groups
        self._groups = int(group.max()) + 1
        self._kinds += kinds
        is_free = np.ones(len(group), dtype=bool) if free is None else free
        outcome = np.full(len(group), np.nan) if safe is None else safe
        self._columns.append((consulted, rewards, group, weights, is_free, outcome))

    def metrics(self, limit: int | None = None) -> dict[str, float]:
        """Returns the metrics of all episodes since the last call, and `reward`; empty if there are none.

        Args:
            limit: number of episodes, in the order in which they were added; later ones are repetitions.
        """
        if not self._columns:
            return {}
        consulted, rewards, groups, weights, free, safe = (
            np.concatenate(parts)[:limit] for parts in zip(*self._columns, strict=True)
        )
        metrics = batch_metrics(self._kinds[:limit], consulted, rewards, groups, weights, free, safe)
        _add_mean(metrics, "reward", rewards[~np.isnan(rewards)])
        self._clear()
        return metrics


def batch_metrics(
    kinds: Sequence[str | None],
    consulted: Any,
    rewards: Any,
    groups: Any,
    weights: Any,
    free: Any = None,
    safe: Any = None,
) -> dict[str, float]:
    """Computes the metrics of one batch for a trainer's log; metrics without an episode are left out.

    Args:
        kinds: (N,) kinds of the prompts.
        consulted: (N,) whether each episode consulted.
        rewards: (N,) numbers; NaN where an episode has no reward.
        groups: (N,) group labels.
        weights: (N,) of the episodes with a reward; ignored elsewhere.
        free: (N,) whether the policy chose the mode; None if it always did.
        safe: (N,) outcome of the episodes of harmful prompts, NaN elsewhere; None if it is not known.

    Returns:
        `ifpo/consult_rate`, `ifpo/consult_rate/KIND` and `ifpo/safe_rate` (of the free episodes),
        `ifpo/reward/KIND`, `ifpo/reward/MODE`, `ifpo/one_mode_groups` and `ifpo/equal_reward_groups`
        (shares), `ifpo/largest_weight`, `ifpo/effective_share` (of the weights: `(sum w)^2 / (N sum w^2)`),
        and `ifpo/unscored` (share without a reward).
    """
    kind = np.array([str(name) for name in kinds])
    mode, reward = np.asarray(consulted, dtype=bool), np.asarray(rewards, dtype=float)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    rated = ~np.isnan(reward)
    chosen = np.ones(len(mode), dtype=bool) if free is None else np.asarray(free, dtype=bool)
    metrics: dict[str, float] = {"unscored": float((~rated).mean())}
    _add_mean(metrics, "consult_rate", mode[chosen])
    if safe is not None:
        _add_mean(metrics, "safe_rate", safe[chosen & ~np.isnan(safe)])
    for name in sorted(set(kind.tolist())):
        _add_mean(metrics, f"consult_rate/{name}", mode[(kind == name) & chosen])
        _add_mean(metrics, f"reward/{name}", reward[(kind == name) & rated])
    _add_mean(metrics, "reward/consult", reward[mode & rated])
    _add_mean(metrics, "reward/direct", reward[~mode & rated])
    if rated.any():
        index = np.unique(group[rated], return_inverse=True)[1]
        size, consulting = np.bincount(index), np.bincount(index, mode[rated])
        high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
        np.maximum.at(high, index, reward[rated])
        np.minimum.at(low, index, reward[rated])
        weight = np.asarray(weights, dtype=float)[rated]
        metrics["one_mode_groups"] = float(((consulting == 0) | (consulting == size)).mean())
        metrics["equal_reward_groups"] = float((high == low).mean())
        metrics["largest_weight"] = float(weight.max())
        metrics["effective_share"] = float(weight.sum() ** 2 / (len(weight) * (weight**2).sum()))
    return {f"{PREFIX}/{name}": value for name, value in metrics.items()}


def _add_mean(metrics: dict[str, float], name: str, values: Any) -> None:
    if len(values):
        metrics[name] = float(values.mean())
