"""How far a policy has moved from the one whose episodes it replays: overall, and in the decision to consult.

All figures are of one micro-batch over all processes, and the same on each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from evaluation.prompts import KINDS

OTHER = len(KINDS)
"""The index of a kind that is none of ours."""


def kind_index(kind: str | None) -> int:
    """The place of a kind of prompt among `KINDS`."""
    return KINDS.index(kind) if kind in KINDS else OTHER


def consult_direction(rows: Sequence[dict[str, Any]], width: int) -> torch.Tensor:
    """(B, C) 1 on the tokens that decided for consulting, -1 on those that decided against it, else 0."""
    signs = torch.zeros(len(rows), width)
    for sign, row in zip(signs, rows, strict=True):
        first, last = row["decision"]
        sign[first:last] = 1.0 if row["mode"] == "consult" else -1.0
    return signs


def divergence(moved: torch.Tensor, accelerator: Any) -> dict[str, float]:
    """From (S,) log-ratios: the divergence by k3, the estimate that is never negative, and the ratios."""
    ratio = moved.exp()
    sums = torch.stack([(moved.expm1() - moved).sum(), ratio.sum(), moved.new_tensor(float(len(moved)))])
    total, ratios, count = accelerator.reduce(sums).tolist()
    largest = accelerator.gather(ratio.amax()[None] if len(moved) else moved.new_zeros(1)).max()
    if not count:
        return {}
    return {
        "logged/kl": total / count,
        "logged/mean_ratio": ratios / count,
        "logged/largest_ratio": largest.item(),
    }


def filter_drift(
    moved: torch.Tensor, wrote: torch.Tensor, advantages: torch.Tensor, threshold: float, accelerator: Any
) -> dict[str, float]:
    """The share of episodes that the off-policy mask leaves out, as TRL decides it (moved: (B, C))."""
    away = -(moved * wrote).sum(1) / wrote.sum(1).clamp(min=1)
    lowered = (advantages.reshape(len(moved), -1) < 0).any(1)
    left = (lowered & (away > threshold)).float().mean()
    return {"logged/dropped": accelerator.reduce(left, reduction="mean").item()}


def decisions(
    moved: torch.Tensor, signs: torch.Tensor, kinds: torch.Tensor, accelerator: Any
) -> dict[str, float]:
    """By kind, how many nats likelier consulting has become, or answering directly less likely.

    Args:
        moved: (B, C) log-ratios.
        signs: (B, C) of `consult_direction`, 0 where the policy did not write.
        kinds: (B,) of `kind_index`.
    """
    decided = signs.any(1)
    sums = moved.new_zeros(2, OTHER + 1)
    sums[0].index_add_(0, kinds[decided], (moved * signs).sum(1)[decided])
    sums[1].index_add_(0, kinds[decided], decided[decided].to(moved))
    shift, count = accelerator.reduce(sums).tolist()
    names = (*KINDS, "other")
    return {
        f"logged/towards_consulting/{name}": s / n
        for name, s, n in zip(names, shift, count, strict=True)
        if n
    }
