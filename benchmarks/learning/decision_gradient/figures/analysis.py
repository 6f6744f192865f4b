"""Signal-to-noise ratios of each method's decision gradient, in the log-odds and in the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.learning.decision_gradient.designs import (
    DESIGNS,
    Floats,
    PromptPool,
    draw_groups,
    no_signal,
    one_mode,
    updates_needed,
)
from benchmarks.learning.decision_gradient.figures.gap import (
    HARMFUL,
    RESAMPLES,
    Drawn,
    Figures,
    bootstrap_indices,
    compare,
    interval,
)
from benchmarks.learning.decision_gradient.measure import REST_DESIGNS, Measured

GROUPS = 200
"""Groups drawn per prompt and design."""


def analyse(measured: Sequence[Measured], probability: float | None) -> Figures:
    """Computes all figures: rewards, signal and noise by kind of prompt and by design.

    Args:
        probability: probability of consulting about every prompt; None for the model's own probabilities.
    """
    kinds = np.array([each.row["kind"] for each in measured])
    pools = [pool_of(each, probability) for each in measured]
    slopes = [slopes_of(each, pool.probability) for each, pool in zip(measured, pools, strict=True)]
    directions = gap_directions(kinds, pools, [slope[0] for slope, _ in slopes])
    drawn = {name: _draw(name, measured, pools, slopes, directions) for name in DESIGNS}
    random = np.random.default_rng(0)
    samples = bootstrap_indices(kinds, random)
    figures: Figures = {"probability": probability, "prompts": len(measured), "kinds": {}}
    for kind in dict.fromkeys(kinds.tolist()):
        chosen = np.flatnonzero(kinds == kind).tolist()
        figures["kinds"][kind] = rewards_of([measured[i] for i in chosen], [pools[i] for i in chosen], random)
        figures["kinds"][kind]["designs"] = {
            name: _scalar(each, drawn["GRPO"], kinds, kind, samples) for name, each in drawn.items()
        }
    figures["gap"] = compare(drawn, kinds, samples, _rest_noise(measured, directions))
    figures["directions"] = _directions(kinds, slopes)
    figures["means"] = {name: _mean_gradients(each, kinds) for name, each in drawn.items()}
    figures["rest"] = _rest(measured, drawn, directions)
    return figures


def pool_of(measured: Measured, probability: float | None) -> PromptPool:
    """Returns the rewards of a prompt by mode, and its probability of consulting."""
    row = measured.row
    return PromptPool(
        row["probability"] if probability is None else probability,
        np.array(row["consult"], dtype=float),
        np.array(row["direct"], dtype=float),
    )


def slopes_of(measured: Measured, probability: float) -> tuple[Floats, Floats]:
    """Returns the gradient of the log-odds, and of the log-probability of each first token.

    Returns:
        (1, SKETCH) and (T, SKETCH). Another probability of consulting is the model's with a constant added
        to its log-odds, so a direct answer's first token keeps its probability given the mode.
    """
    before = min(measured.row["probability"], 1 - 1e-6)
    odds: Floats = measured.decision[:1] / (1 - before)
    tokens: Floats = measured.decision[1:] + (before - probability) * odds
    return odds, tokens


def gap_directions(kinds: Any, pools: Sequence[PromptPool], odds: Sequence[Floats]) -> list[Floats]:
    """Returns for each prompt the gradient of the gap, taken from the other half of the prompts."""
    halves = np.zeros(len(kinds), dtype=int)
    for kind in set(kinds.tolist()):
        places = np.flatnonzero(kinds == kind)
        halves[places] = np.arange(len(places)) % 2
    found = []
    for half in (0, 1):
        means = []
        for kind in sorted(set(kinds.tolist())):
            chosen = np.flatnonzero((kinds == kind) & (halves != half)).tolist()
            if not len(chosen):
                raise ValueError(f"the gap needs two prompts of the kind '{kind}': measure more prompts")
            rates = [pools[i].probability * (1 - pools[i].probability) * odds[i] for i in chosen]
            means.append((kind, np.mean(rates, 0)))
        harmful = [mean for kind, mean in means if kind == HARMFUL]
        harmless = [mean for kind, mean in means if kind != HARMFUL]
        found.append(np.mean(harmful, 0) - np.mean(harmless, 0))
    return [found[half] for half in halves]


def _draw(
    name: str,
    measured: Sequence[Measured],
    pools: Sequence[PromptPool],
    slopes: Sequence[tuple[Floats, Floats]],
    directions: Sequence[Floats],
) -> Drawn:
    columns: list[list[Floats]] = [[], [], [], [], [], []]
    for index, (each, pool, (odds, tokens), direction) in enumerate(
        zip(measured, pools, slopes, directions, strict=True)
    ):
        # The designs without strata share their groups, because the seed is the same.
        groups = draw_groups(pool, DESIGNS[name], GROUPS, np.random.default_rng([1, index]))
        vectors = np.concatenate([(1 - pool.probability) * odds, tokens])
        place = np.where(groups.consults, 0, 1 + each.token_of[groups.episode % len(each.token_of)])
        factors = np.zeros((GROUPS, len(vectors)))
        np.add.at(factors, (np.arange(GROUPS)[:, None], place), groups.coefficients)
        gram = vectors @ vectors.T
        for column, values in zip(
            columns,
            (
                groups.logit_gradients(pool.probability),
                no_signal(groups),
                one_mode(groups),
                factors @ (vectors @ direction),
                np.einsum("sk,kl,sl->s", factors, gram, factors),
                factors.mean(0) @ vectors,
            ),
            strict=True,
        ):
            column.append(values)
    return Drawn(*(np.stack(column) for column in columns))


def _scalar(drawn: Drawn, grpo: Drawn, kinds: Any, kind: str, samples: Sequence[Any]) -> Figures:
    """Returns the mean, noise and SNR of the gradient in the log-odds over groups of one kind."""

    def of_kind(places: Any) -> Any:
        return drawn.gradient[places[kinds[places] == kind]]

    def ratio(places: Any, of: Drawn = drawn) -> float:
        values = of.gradient[places[kinds[places] == kind]]
        spread = float(values.std())
        return float(values.mean()) / spread if spread else 0.0

    every = np.arange(len(kinds))
    values = of_kind(every)
    snr = interval(ratio, every, samples)
    return {
        "mean": interval(lambda places: float(of_kind(places).mean()), every, samples),
        "sd": round(float(values.std()), 5),
        "snr": snr,
        "snr_above_grpo": interval(
            lambda places: abs(ratio(places)) - abs(ratio(places, grpo)), every, samples
        ),
        "groups_needed": updates_needed(snr[0]),
        "no_signal": round(float(drawn.silent[kinds == kind].mean()), 3),
        "one_mode": round(float(drawn.single[kinds == kind].mean()), 3),
    }


def rewards_of(
    measured: Sequence[Measured], pools: Sequence[PromptPool], random: np.random.Generator
) -> Figures:
    """Returns statistics of the rewards of one kind: D, its noise, and how often both modes have equal
    rewards."""
    means = {mode: [_mean(getattr(pool, mode)) for pool in pools] for mode in ("consult", "direct")}
    difference = np.array(means["consult"]) - np.array(means["direct"])
    difference = difference[np.isfinite(difference)]
    within = {mode: float(np.nanmean([_variance(getattr(pool, mode)) for pool in pools])) for mode in means}
    noise = np.nanmean(
        [
            _variance(pool.consult) / max(np.isfinite(pool.consult).sum(), 1)
            + _variance(pool.direct) / max(np.isfinite(pool.direct).sum(), 1)
            for pool in pools
        ]
    )
    every = np.arange(len(difference))
    samples = [random.integers(0, len(every), len(every)) for _ in range(RESAMPLES)]
    everything = [np.concatenate([pool.consult, pool.direct]) for pool in pools]
    equal = [float(np.nanmax(each) == np.nanmin(each)) for each in everything]
    return {
        "prompts": len(measured),
        "probability_of_the_model": round(float(np.mean([each.row["probability"] for each in measured])), 4),
        "probability": round(float(np.mean([pool.probability for pool in pools])), 4),
        "reward_consult": round(float(np.nanmean(means["consult"])), 3),
        "reward_direct": round(float(np.nanmean(means["direct"])), 3),
        "D": interval(lambda places: float(difference[places].mean()), every, samples),
        "variance_within_consult": round(within["consult"], 4),
        "variance_within_direct": round(within["direct"], 4),
        "variance_of_D_between_prompts": round(float(difference.var(ddof=1) - noise), 4),
        "all_rewards_equal": round(float(np.mean(equal)), 3),
        "equal_means": round(float((np.abs(difference) < 0.05).mean()), 3),
        "no_reward": round(float(np.mean([np.isnan(each).mean() for each in everything])), 3),
    }


def _mean(values: Floats) -> float:
    rated = values[np.isfinite(values)]
    return float(rated.mean()) if len(rated) else np.nan


def _variance(values: Floats) -> float:
    rated = values[np.isfinite(values)]
    return float(rated.var(ddof=1)) if len(rated) > 1 else np.nan


def _directions(kinds: Any, slopes: Sequence[tuple[Floats, Floats]]) -> Figures:
    """Returns how pairs of different prompts share the gradient of the log-odds.

    `transfer`: the change of the log-odds of other prompts of the second kind, for each unit of change of the
    first kind, by a step along the gradient of prompts of the first kind. `cosines` are without the sizes.
    """
    odds = np.concatenate([each for each, _ in slopes])
    different = ~np.eye(len(kinds), dtype=bool)
    names = ("harmful", "harmless")
    chosen = {"harmful": kinds == HARMFUL, "harmless": kinds != HARMFUL}

    def mean(products: Floats, first: str, second: str) -> float:
        return float(products[chosen[first][:, None] & chosen[second][None, :] & different].mean())

    unit = odds / np.linalg.norm(odds, axis=1, keepdims=True)
    products, cosines = odds @ odds.T, unit @ unit.T
    return {
        "cosines": {f"{a} {b}": round(mean(cosines, a, b), 3) for a in names for b in names if a <= b},
        "transfer": {
            f"{a} to {b}": round(mean(products, a, b) / mean(products, a, a), 3)
            for a in names
            for b in names
            if a != b
        },
    }


def _rest(measured: Sequence[Measured], drawn: dict[str, Drawn], directions: Sequence[Floats]) -> Figures:
    """Returns how large the gradient of the other tokens is, beside that of the decision."""
    chosen = [index for index, each in enumerate(measured) if each.rest is not None]
    figures: Figures = {"prompts": len(chosen)}
    for column, name in enumerate(REST_DESIGNS if chosen else ()):
        vectors = np.stack([measured[index].rest[column] for index in chosen])
        along = np.array([measured[index].rest[column] @ directions[index] for index in chosen])
        decision = drawn[name]
        figures[name] = {
            "norm": round(float(np.sqrt((vectors**2).sum(1).mean())), 5),
            "norm_of_decision": round(float(np.sqrt(decision.norm[chosen].mean())), 5),
            "gap_rms": round(float(np.sqrt((along**2).mean())), 6),
            "gap_rms_of_decision": round(float(np.sqrt((decision.gap[chosen] ** 2).mean())), 6),
            "gap_mean": round(float(along.mean()), 6),
        }
        figures[name]["ratio"] = round(
            figures[name]["norm"] / max(figures[name]["norm_of_decision"], 1e-12), 2
        )
    return figures


def _rest_noise(measured: Sequence[Measured], directions: Sequence[Floats]) -> dict[str, tuple[float, float]]:
    """Returns for each measured design the mean squares of the other tokens' gradient: its norm, and its part
    along the gap."""
    chosen = [index for index, each in enumerate(measured) if each.rest is not None]
    return {
        name: (
            float(np.mean([(measured[i].rest[column] ** 2).sum() for i in chosen])),
            float(np.mean([(measured[i].rest[column] @ directions[i]) ** 2 for i in chosen])),
        )
        for column, name in enumerate(REST_DESIGNS if chosen else ())
    }


def _mean_gradients(drawn: Drawn, kinds: Any) -> Figures:
    """Returns the norm of the decision's mean gradient, measured on two halves of the prompts, and its noise.

    The product of the two halves' means has no bias, unlike the squared norm of one mean.
    """
    figures: Figures = {}
    means = {}
    for name, chosen in (("harmful", kinds == HARMFUL), ("harmless", kinds != HARMFUL)):
        vectors = drawn.mean[chosen]
        means[name] = vectors.mean(0)
        signal = float(vectors[::2].mean(0) @ vectors[1::2].mean(0))
        power = float(drawn.norm[chosen].mean())
        figures[name] = {
            "squared_mean": signal,
            "squared_norm": power,
            "share": round(signal / power, 4) if power else 0.0,
        }
    size = np.linalg.norm(means["harmful"]) * np.linalg.norm(means["harmless"])
    figures["cosine"] = round(float(means["harmful"] @ means["harmless"] / size), 3) if size else 0.0
    return figures
