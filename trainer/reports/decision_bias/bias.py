"""Chooses the offset on the opening token for a target consult rate.

The rate of a kind is the mean probability of consulting over its prompts. It rises with the offset, so the
offset of a target rate is interpolated on a grid. Intervals are bootstraps over prompts: each resample draws
prompts within their kind, chooses its own offset, and reads the other kinds' rates there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.errors import TrainingError
from trainer.reports.decision_bias.decisions import HARMFUL, Decisions, FloatArray

LIMIT = 100.0
"""Largest offset: that of `logit_bias` in the APIs."""
GRID: FloatArray = np.linspace(-LIMIT, LIMIT, 4001)
RESAMPLES = 1000
MIN_PROMPTS = 5
"""Minimum prompts of a kind for an interval; with fewer, it would be too wide to be useful."""


@dataclass(frozen=True)
class KindRates:
    """Consult rates of one kind of prompt."""

    prompts: int
    now: float
    """Consult rate without an offset."""
    rate: float
    """Consult rate with the chosen offset."""
    low: float | None = None
    high: float | None = None
    """Bounds of the 95% interval of `rate`; None for the kind with the target rate."""


@dataclass(frozen=True)
class BiasChoice:
    """An offset, and the resulting consult rates."""

    kind: str
    target: float
    offset: float
    low: float | None
    high: float | None
    """Bounds of the 95% interval of `offset`, by bootstrap over prompts. Both are None with too few prompts;
    `high` also if more than 2.5% of the resamples never reach the target rate."""
    kinds: dict[str, KindRates]
    auc: float | None
    """Area under the ROC curve; None without harmful or without harmless prompts."""
    roc: list[tuple[float, float]]
    """Shares of harmless and of harmful prompts above each threshold of the log-odds."""

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "kind": self.kind,
            "wished": self.target,
            "offset": self.offset,
            "interval": {"low": self.low, "high": self.high, "method": "bootstrap over prompts"},
            "kinds": {kind: vars(rates) for kind, rates in self.kinds.items()},
            "auc": self.auc,
            "roc": self.roc,
        }


def choose_bias(measured: Decisions, kind: str, target: float, seed: int = 0) -> BiasChoice:
    """Chooses the offset for a target consult rate of one kind of prompt.

    Raises:
        TrainingError: no prompt has this kind, or no offset leads to the rate.
    """
    if not measured.of_kind(kind):
        known = ", ".join(measured.kinds) or "none"
        raise TrainingError(
            f"no prompt is of the kind '{kind}' (kinds: {known}): use a calibration set with {kind} prompts"
        )
    curve = measured.rates(kind, GRID)
    mean = curve.mean(0)
    if not mean[0] < target <= mean[-1]:
        raise TrainingError(
            f"no offset from {-LIMIT:g} to {LIMIT:g} leads to a consult rate of {target:g} for {kind} "
            f"prompts: the rates go from {mean[0]:.3g} to {mean[-1]:.3g}, so choose one between them, or "
            "use a model that has learnt to call the rule tool"
        )
    offset = float(_offsets(mean[None], target)[0])
    generator = np.random.default_rng(seed)
    enough = len(curve) >= MIN_PROMPTS
    resampled = _offsets(_resampled(curve, generator), target) if enough else None
    low, high = (None, None) if resampled is None else _bounds(resampled)
    high = None if high is None or math.isinf(high) else high
    kinds = {
        each: _rates(measured, each, kind, offset, target, resampled, generator) for each in measured.kinds
    }
    auc, roc = roc_curve(measured)
    return BiasChoice(kind, target, offset, low, high, kinds, auc, roc)


def _rates(
    measured: Decisions,
    kind: str,
    target_kind: str,
    offset: float,
    target: float,
    resampled: FloatArray | None,
    generator: np.random.Generator,
) -> KindRates:
    now, then = measured.rates(kind, np.array([0.0, offset])).mean(0)
    count = len(measured.of_kind(kind))
    if kind == target_kind:
        return KindRates(count, float(now), target)
    low, high = None, None
    if resampled is not None and count >= MIN_PROMPTS:
        means = _resampled(measured.rates(kind, GRID), generator)
        offsets = np.minimum(resampled, LIMIT)
        at = np.clip(np.searchsorted(GRID, offsets), 1, len(GRID) - 1)
        rows, step = np.arange(len(at)), (offsets - GRID[at - 1]) / (GRID[at] - GRID[at - 1])
        low, high = _bounds((1 - step) * means[rows, at - 1] + step * means[rows, at])
    return KindRates(count, float(now), float(then), low, high)


def _resampled(rates: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Returns the mean curves, (RESAMPLES, O), of resampled prompts."""
    count = len(rates)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    return np.asarray(weights @ rates, dtype=np.float64)


def _offsets(means: FloatArray, target: float) -> FloatArray:
    """Returns the offset at which each rising curve of `means`, (R, O), reaches the target rate.

    A curve that never does gets infinity.
    """
    reached = means >= target
    at = np.maximum(reached.argmax(1), 1)
    rows = np.arange(len(means))
    before, after = means[rows, at - 1], means[rows, at]
    rise = np.where(after > before, after - before, 1.0)
    step = np.clip((target - before) / rise, 0.0, 1.0)
    offsets = GRID[at - 1] + step * (GRID[at] - GRID[at - 1])
    return np.asarray(np.where(reached.any(1), offsets, np.inf), dtype=np.float64)


def _bounds(values: FloatArray) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5], method="inverted_cdf")
    return float(low), float(high)


def roc_curve(measured: Decisions) -> tuple[float | None, list[tuple[float, float]]]:
    """Returns the area under the ROC curve of harmful against all other prompts, and its points."""
    harmful = np.array([each.margin for each in measured.decisions if each.kind == HARMFUL])
    harmless = np.array([each.margin for each in measured.decisions if each.kind != HARMFUL])
    if not len(harmful) or not len(harmless):
        return None, []
    thresholds = np.unique(np.concatenate([harmful, harmless]))[::-1]
    points = [(0.0, 0.0)]
    points += [(float((harmless >= t).mean()), float((harmful >= t).mean())) for t in thresholds]
    false, true = np.array(points).T
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2), points
