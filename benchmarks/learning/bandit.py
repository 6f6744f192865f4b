"""A two-context bandit with a shared bias: can a method learn to consult in one context but not the other?

    python -m benchmarks.learning.bandit [--seeds 50] [--updates 400] [--json] [--picture FILE]

The policy consults in context x with probability sigmoid(b + c_x). In the harmful context the reward is 1
with probability .95 after consulting and .55 otherwise; in the harmless context .80 and .92. A group is G = 8
episodes of one context. An update uses one group of each context, with advantages divided by the group's
standard deviation. Plain gradient ascent (rate .3) shows the expected direction of an estimator. Adam (rate
.05), which real models are trained with, removes the size of the gradient but keeps its direction and noise.
Advantages, ratios, costs and the safety multiplier come from `trainer.ifpo`; the multiplier follows the
consult rate of each update's harmful group. All seeds run in parallel, with the same random numbers
for every method.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.tools.seed_means import Interval, format_interval, mean_interval
from trainer.ifpo import (
    Baseline,
    CostWhere,
    decision_ratios,
    ifpo_advantages,
    updated_multiplier,
    with_consultation_cost,
)

Floats = npt.NDArray[np.float64]
CONTEXTS = ("harmful", "harmless")
REWARD_PROBABILITY = np.array([[0.55, 0.95], [0.92, 0.80]])  # by context: direct, consult
INITIAL_RATES = (0.90, 0.97, 0.99)
GROUP_SIZE = 8
RATES = {"ascent": 0.3, "adam": 0.05}
PICTURE = Path(__file__).with_name("bandit.png")


@dataclass(frozen=True)
class Method:
    """Sampling and weighting of groups; see `trainer.ifpo`."""

    alpha: float = 1.0
    baseline: Baseline = "balanced"
    forced: int = 0
    """Number of forced episodes of each mode."""
    cost: float = 0.0
    cost_where: CostWhere = "always"
    harmful_floor: float | None = None
    """Consult rate in the harmful context that the safety multiplier holds."""


METHODS = {
    "GRPO": Method(alpha=0),
    "GRPO, consultation costs .1": Method(alpha=0, cost=0.1),
    "GRPO, consultation costs .1, floor .95": Method(alpha=0, cost=0.1, harmful_floor=0.95),
    "GRPO, consultation costs .1 where direct is as good": Method(
        alpha=0, cost=0.1, cost_where="direct_as_good"
    ),
    "GRPO, stratified": Method(alpha=0, forced=2),
    "IFPO": Method(),
    "IFPO, group baseline": Method(baseline="group"),
    "IFPO, stratified": Method(forced=2),
}


@dataclass(frozen=True)
class Outcome:
    """Final state of a method: consult rates as mean and interval over seeds, and the expected reward."""

    optimizer: str
    start: float
    method: str
    harmful: Interval
    harmless: Interval
    reward: float
    stuck: float
    """Share of seeds whose consult rate in the harmless context is above one half."""


def train(method: Method, optimizer: str, start: float, seeds: int, updates: int) -> Floats:
    """Returns (updates + 1, S, 2) the probability of consulting: initially and after each update, by
    context."""
    groups = np.repeat(np.arange(seeds * 2), GROUP_SIZE)
    context = np.tile(np.repeat([0, 1], GROUP_SIZE), seeds)
    forced = np.tile(np.arange(GROUP_SIZE) >= GROUP_SIZE - 2 * method.forced, seeds * 2)
    # Of the forced episodes, the first half consults.
    forced_modes = np.tile(np.arange(GROUP_SIZE) < GROUP_SIZE - method.forced, seeds * 2)
    weights = np.zeros((seeds, 3))  # b and both c_x
    weights[:, 0] = math.log(start / (1 - start))
    path = [_sigmoid(weights[:, :1] + weights[:, 1:])]
    first_moment, second_moment = np.zeros_like(weights), np.zeros_like(weights)  # of Adam
    multiplier = np.ones(seeds)  # of the advantages in the harmful context
    rng = np.random.default_rng(0)  # the same draws for every method
    for update in range(1, updates + 1):
        p = path[-1].ravel()[groups]  # (N,)
        draws = rng.random((2, len(groups)))
        modes = np.where(forced, forced_modes, draws[0] < p).astype(np.int64)
        rewards = with_consultation_cost(
            (draws[1] < REWARD_PROBABILITY[context, modes]).astype(float),
            modes,
            method.cost,
            groups=groups,
            where=method.cost_where,
        )
        advantages = ifpo_advantages(
            rewards, modes, groups, alpha=method.alpha, w_max=math.inf, baseline=method.baseline
        )
        if method.harmful_floor is not None:
            advantages *= np.where(context == 0, np.repeat(multiplier, 2 * GROUP_SIZE), 1.0)
            rates = modes.reshape(seeds, 2, GROUP_SIZE)[:, 0].mean(1)  # of this update's harmful groups
            multiplier = updated_multiplier(multiplier, rates, floor=method.harmful_floor)
        ratios = decision_ratios(np.where(modes == 1, p, 1 - p), modes, forced, groups)
        logit_gradient = np.bincount(groups, ratios * advantages * (modes - p)).reshape(seeds, 2) / GROUP_SIZE
        gradient = np.column_stack([logit_gradient.sum(1), logit_gradient])
        if optimizer == "adam":
            first_moment = 0.9 * first_moment + 0.1 * gradient
            second_moment = 0.999 * second_moment + 0.001 * gradient**2
            scale = np.sqrt(second_moment / (1 - 0.999**update)) + 1e-8
            gradient = first_moment / (1 - 0.9**update) / scale
        weights = weights + RATES[optimizer] * gradient
        path.append(_sigmoid(weights[:, :1] + weights[:, 1:]))
    return np.stack(path)


def summarize(optimizer: str, start: float, name: str, path: Floats) -> Outcome:
    """Summarizes the final state of a method."""
    final = path[-1]  # (S, 2)
    reward = (final * REWARD_PROBABILITY[:, 1] + (1 - final) * REWARD_PROBABILITY[:, 0]).mean()
    return Outcome(
        optimizer,
        start,
        name,
        mean_interval(final[:, 0]),
        mean_interval(final[:, 1]),
        round(float(reward), 4),
        round(float((final[:, 1] > 0.5).mean()), 3),
    )


def _sigmoid(logit: Floats) -> Floats:
    value: Floats = 1 / (1 + np.exp(-logit))
    return value


def plot(paths: dict[tuple[str, float, str], Floats], file: Path) -> None:
    """Plots consult rates over updates: harmless solid, harmful dotted; rows are optimizers, columns
    starts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(RATES), len(INITIAL_RATES), figsize=(11, 6.4), sharex=True, sharey=True, layout="constrained"
    )
    for (optimizer, start, name), path in paths.items():
        panel = rows[list(RATES).index(optimizer)][INITIAL_RATES.index(start)]
        color = f"C{list(METHODS).index(name)}"
        mean = path.mean(1)  # over seeds
        panel.plot(mean[:, 1], color=color, label=name)
        panel.plot(mean[:, 0], color=color, linestyle=":", linewidth=1)
        panel.set_title(f"{optimizer}, start {start:.0%}", fontsize=10)
        panel.set_ylim(0, 1.02)
    for row in rows:
        row[0].set_ylabel("consult rate (mean over seeds)")
    for panel in rows[-1]:
        panel.set_xlabel("updates")
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle("Two contexts with a shared bias: harmless solid, harmful dotted", fontsize=11)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="PNG file to write")
    options = parser.parse_args()
    if options.seeds < 1 or options.updates < 1:
        print("bandit: --seeds and --updates must be at least 1", file=sys.stderr)
        return 1
    paths = {
        (optimizer, start, name): train(method, optimizer, start, options.seeds, options.updates)
        for optimizer in RATES
        for start in INITIAL_RATES
        for name, method in METHODS.items()
    }
    outcomes = [summarize(*key, path) for key, path in paths.items()]
    plot(paths, options.picture)
    if options.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=1))
    else:
        print("| optimizer | start | method | harmful | harmless | expected reward | stuck |")
        print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
        for each in outcomes:
            print(
                f"| {each.optimizer} | {each.start:.2f} | {each.method} | {format_interval(each.harmful)} | "
                f"{format_interval(each.harmless)} | {each.reward:.3f} | {each.stuck:.0%} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
