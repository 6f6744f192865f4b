"""Distance of a policy from the one whose episodes it replays: overall, and in the decision to consult.

All metrics cover one micro-batch of all processes, and are equal in each of them. Each comes with the number
of tokens or episodes over which it is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from evaluation.prompts import KINDS

Metrics = dict[str, tuple[float, float]]
"""Value and number of items, by metric."""
OTHER_KIND = len(KINDS)
"""Index of every kind that is not in `KINDS`."""


def kind_index(kind: str | None) -> int:
    """Returns the position of a kind of prompt in `KINDS`, or `OTHER_KIND`."""
    return KINDS.index(kind) if kind in KINDS else OTHER_KIND


def consult_direction(rows: Sequence[dict[str, Any]], width: int) -> torch.Tensor:
    """(B, C) 1 on the decision tokens of consulting episodes, -1 on those of direct ones, else 0."""
    signs = torch.zeros(len(rows), width)
    for sign, row in zip(signs, rows, strict=True):
        first, last = row["decision"]
        sign[first:last] = 1.0 if row["mode"] == "consult" else -1.0
    return signs


def divergence(log_ratios: torch.Tensor, accelerator: Any) -> Metrics:
    """Computes the KL divergence from (S,) log-ratios by the non-negative k3 estimator, and the ratios."""
    ratio = log_ratios.exp()
    count_here = log_ratios.new_tensor(float(len(log_ratios)))
    sums = torch.stack([(log_ratios.expm1() - log_ratios).sum(), ratio.sum(), count_here])
    total, ratios, count = accelerator.reduce(sums).tolist()
    largest = accelerator.gather(ratio.amax()[None] if len(log_ratios) else log_ratios.new_zeros(1)).max()
    if not count:
        return {}
    return {
        "logged/kl": (total / count, count),
        "logged/mean_ratio": (ratios / count, count),
        "logged/largest_ratio": (largest.item(), count),
    }


def off_policy_share(
    log_ratios: torch.Tensor,
    loss_mask: torch.Tensor,
    advantages: torch.Tensor,
    threshold: float,
    accelerator: Any,
    is_episode: torch.Tensor,
) -> Metrics:
    """Computes the share of episodes that TRL's off-policy mask excludes, by TRL's rule.

    Args:
        log_ratios: (B, C).
        loss_mask: (B, C).
        advantages: (B,) or (B, C).
        is_episode: (B,) False for rows that only fill a batch.
    """
    distance = -(log_ratios * loss_mask).sum(1) / loss_mask.sum(1).clamp(min=1)
    negative = (advantages.reshape(len(log_ratios), -1) < 0).any(1)
    excluded = negative & (distance > threshold) & is_episode
    counts = torch.stack([excluded.sum(), is_episode.sum()]).float()
    dropped, episodes = accelerator.reduce(counts).tolist()
    return {"logged/dropped": (dropped / episodes, episodes)} if episodes else {}


def decision_drift(
    log_ratios: torch.Tensor, signs: torch.Tensor, kinds: torch.Tensor, accelerator: Any
) -> Metrics:
    """Computes by kind how far decisions moved towards consulting, in nats: consulting became likelier, or
    answering directly less likely.

    Args:
        log_ratios: (B, C).
        signs: (B, C) of `consult_direction`, 0 outside the loss mask.
        kinds: (B,) of `kind_index`.
    """
    decided = signs.any(1)
    sums = log_ratios.new_zeros(2, OTHER_KIND + 1)
    sums[0].index_add_(0, kinds[decided], (log_ratios * signs).sum(1)[decided])
    sums[1].index_add_(0, kinds[decided], decided[decided].to(log_ratios))
    shifts, counts = accelerator.reduce(sums).tolist()
    return {
        f"logged/towards_consulting/{name}": (shift / count, count)
        for name, shift, count in zip((*KINDS, "other"), shifts, counts, strict=True)
        if count
    }
