"""How fast each method widens the gap between consulting on harmful and on harmless prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.learning.decision_gradient.designs import Floats, groups_for_sign, updates_needed

RESAMPLES, BATCH = 1000, 12
"""Bootstrap samples of the prompts, and groups of one update."""
HARMFUL = "harmful"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """Groups of one design, all prompts: (P, S) each."""

    gradient: Floats
    """In the log-odds of consulting."""
    silent: Floats
    """Whether no decision has an advantage."""
    single: Floats
    """Whether all episodes have one mode."""
    gap: Floats
    """Change of the gap along the decision's gradient in the parameters."""
    norm: Floats
    """Squared norm of that gradient."""
    mean: Floats
    """(P, SKETCH) its mean over the groups of each prompt."""


def bootstrap_indices(kinds: Any, random: np.random.Generator) -> list[Any]:
    """Returns samples of the prompts, with as many of each kind as there are."""
    places = [np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds.tolist())]
    return [np.concatenate([random.choice(each, len(each)) for each in places]) for _ in range(RESAMPLES)]


def interval(statistic: Callable[[Any], float], everything: Any, samples: Sequence[Any]) -> list[float]:
    """Returns a statistic of the prompts, with its 95 % bootstrap interval."""
    values = np.array([statistic(sample) for sample in samples])
    values = values[np.isfinite(values)]
    ends = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return [round(float(each), 5) for each in (statistic(everything), *ends)]


def compare(
    drawn: dict[str, Drawn], kinds: Any, samples: Sequence[Any], rest: dict[str, tuple[float, float]]
) -> Figures:
    """Returns how fast each design widens the gap per update, the number of groups that determine the sign of
    its gradient, and the number of updates that distinguish it from GRPO.

    Speed: the change of the gap by an update of `BATCH` groups, half of them harmful, whose gradient is
    divided by its root mean square norm.

    Args:
        rest: mean squares of the other tokens' gradient, by design: its norm, and its part along the gap.
    """
    every = np.arange(len(kinds))

    def weights(places: Any) -> Floats:
        counts = {kind: float((kinds[places] == kind).sum()) for kind in set(kinds.tolist())}
        harmless = len(counts) - 1
        return np.array([(0.5 if kinds[i] == HARMFUL else 0.5 / harmless) / counts[kinds[i]] for i in places])

    def speed(name: str, places: Any, *, all_tokens: bool = False) -> tuple[float, float]:
        """Mean and variance of the change of the gap by one update."""
        other_norm, other_gap = rest[name] if all_tokens else (0.0, 0.0)
        share, each = weights(places), drawn[name]
        gap = float(share @ each.gap[places].mean(1))
        square = float(share @ (each.gap[places] ** 2).mean(1))
        norm = (float(share @ each.norm[places].mean(1)) + other_norm) / BATCH
        if not norm:
            return 0.0, 0.0
        return gap / float(np.sqrt(norm)), (square - gap**2 + other_gap) / BATCH / norm

    def ratio(name: str, places: Any, *, all_tokens: bool = False) -> float:
        mean, variance = speed(name, places, all_tokens=all_tokens)
        return mean / float(np.sqrt(variance)) if variance > 0 else 0.0

    def own_ratio(name: str, places: Any) -> float:
        """SNR of one group if each prompt has separate log-odds, which should rise for harmful prompts, else
        fall."""
        share = weights(places)
        values = np.where(kinds[places] == HARMFUL, 1, -1)[:, None] * drawn[name].gradient[places]
        mean = float(share @ values.mean(1))
        # Half of the groups are harmful, so the noise is that within the two kinds of prompts.
        noise = 0.0
        for chosen in (kinds[places] == HARMFUL, kinds[places] != HARMFUL):
            part = share[chosen] / share[chosen].sum()
            center = float(part @ values[chosen].mean(1))
            noise += 0.5 * float(part @ ((values[chosen] - center) ** 2).mean(1))
        return mean / float(np.sqrt(noise)) if noise > 0 else 0.0

    def updates(name: str, places: Any, *, all_tokens: bool = False) -> float:
        (mean, variance), (other, noise) = (
            speed(each, places, all_tokens=all_tokens) for each in (name, "GRPO")
        )
        total = variance + noise
        return updates_needed((mean - other) / float(np.sqrt(total)) if total else 0.0)

    def mean_speed(name: str, places: Any) -> float:
        return speed(name, places)[0]

    def lead(name: str, places: Any) -> float:
        return speed(name, places)[0] - speed("GRPO", places)[0]

    figures: Figures = {}
    for name in drawn:
        figures[name] = {
            "speed": interval(partial(mean_speed, name), every, samples),
            "snr_per_update": interval(partial(ratio, name), every, samples),
        }
        figures[name]["groups_for_sign"] = {
            "own log-odds": _groups(interval(partial(own_ratio, name), every, samples), 1),
            "shared parameters": _groups(figures[name]["snr_per_update"], BATCH),
        }
        if name in rest:
            figures[name]["speed_all_tokens"] = round(speed(name, every, all_tokens=True)[0], 6)
            snr = interval(partial(ratio, name, all_tokens=True), every, samples)
            figures[name]["snr_per_update_all_tokens"] = snr
            figures[name]["groups_for_sign"]["shared parameters, all tokens"] = _groups(snr, BATCH)
        if name == "GRPO":
            continue
        figures[name]["minus_grpo"] = interval(partial(lead, name), every, samples)
        figures[name]["updates_to_tell"] = interval(partial(updates, name), every, samples)
        if name in rest:
            figures[name]["updates_to_tell_all_tokens"] = updates(name, every, all_tokens=True)
    return figures


def _groups(snr: Sequence[float], batch: int) -> list[float | None]:
    """Returns the groups that give the gap's sign at 95 %, from the SNR of `batch` groups and its interval.

    The best end comes second. None: not even infinitely many, because the expected gap does not grow.
    """
    middle, low, high = snr
    needed = [batch * groups_for_sign(each) for each in (middle, high, low)]
    return [round(each, 1) if np.isfinite(each) else None for each in needed]
