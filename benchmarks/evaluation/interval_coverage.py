"""Measures how often the 95 % interval of a difference over prompts contains the true difference.

    python -m benchmarks.evaluation.interval_coverage --runs 2000

Each shape is a made-up population of prompts: how often their samples are on one side (consulted), and how
rewards depend on the prompt and the side. Logs with few prompts are drawn from it. The true difference is
that of 400,000 prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics import PromptSums

SIZES = (5, 6, 8, 10, 20, 40)
_TRUE_PROMPTS = 400_000


@dataclass(frozen=True)
class Shape:
    """A population of prompts."""

    samples: int = 8
    """Samples of a prompt."""
    marked: tuple[float, float] = (2.0, 2.0)
    """Beta distribution of the probability that a sample is marked."""
    one_sided: bool = False
    """Whether all samples of a prompt are on one side, as harmful and harmless prompts are: half of them."""
    base: float = 0.0
    """Log-odds of a reward of `values[1]` on the other side of an average prompt."""
    effect: float = -0.5
    """Change of these log-odds for a marked sample."""
    spread: float = 1.0
    """Standard deviation of the log-odds between prompts."""
    values: tuple[float, float] = (0.0, 1.0)
    continuous: bool = False
    """Whether the value is the log-odds with noise, instead of one of `values`."""


SHAPES = {
    "rewards near 1/2": Shape(),
    "four samples": Shape(samples=4),
    "high rewards": Shape(base=2.5, effect=-0.8),
    "rewards near 1": Shape(samples=4, base=3.2, effect=-1.0, spread=0.7),
    "prompts decide": Shape(samples=16, base=2.0, spread=4.0),
    "consulting is rare": Shape(marked=(1.0, 4.0), base=0.5, effect=-0.8),
    "a prompt has one mode": Shape(marked=(0.3, 0.3), effect=-0.8),
    "rewards 0.8 and 1": Shape(base=2.0, effect=0.7, values=(0.8, 1.0)),
    "no difference": Shape(effect=0.0, base=1.0),
    "continuous": Shape(effect=0.3, continuous=True),
    "kinds of prompts": Shape(samples=4, one_sided=True, effect=1.0),
    "kinds, one sample": Shape(samples=1, one_sided=True, base=0.5, effect=1.0, spread=0.5),
    "kinds, clear gap": Shape(samples=4, one_sided=True, base=-3.0, effect=5.5),
}


def draw(shape: Shape, prompts: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Returns (N,) prompts, values and marks of a log."""
    prompt = np.repeat(np.arange(prompts), shape.samples)
    if shape.one_sided:
        marked = prompt % 2 == 1
    else:
        marked = rng.random(len(prompt)) < rng.beta(*shape.marked, size=prompts)[prompt]
    log_odds = shape.base + shape.effect * marked + rng.normal(0, shape.spread, prompts)[prompt]
    if shape.continuous:
        return prompt, log_odds + rng.normal(size=len(prompt)), marked
    good = rng.random(len(prompt)) < 1 / (1 + np.exp(-log_odds))
    return prompt, np.where(good, shape.values[1], shape.values[0]), marked


def coverage(shape: Shape, prompts: int, runs: int, seed: int = 0) -> tuple[float, int, float]:
    """Returns the share of intervals with the true difference, the number of intervals, and their mean width.

    A log without an interval, because too few prompts show a side, does not count.
    """
    rng = np.random.default_rng(seed)
    _, value, marked = draw(shape, _TRUE_PROMPTS, rng)
    truth = float(value[marked].mean() - value[~marked].mean())
    hits, widths = 0, list[float]()
    for _ in range(runs):
        sums = PromptSums()
        sums.add(*draw(shape, prompts, rng))
        difference = sums.difference()
        if difference is None or difference.low is None or difference.high is None:
            continue
        hits += difference.low - 1e-6 <= truth <= difference.high + 1e-6
        widths.append(difference.high - difference.low)
    return (hits / len(widths) if widths else float("nan")), len(widths), float(np.mean(widths or [np.nan]))


def coverage_table(sizes: Sequence[int], runs: int) -> str:
    """Returns a Markdown table of the coverage, with the mean width in brackets."""
    lines = ["| population | " + " | ".join(f"{size} prompts" for size in sizes) + " |"]
    lines.append("| --- |" + " ---: |" * len(sizes))
    for name, shape in SHAPES.items():
        cells = []
        for size in sizes:
            share, intervals, width = coverage(shape, size, runs)
            cells.append(f"{share:.3f} ({width:.2f})" if intervals >= runs / 10 else "none")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="logs per cell")
    print(coverage_table(SIZES, parser.parse_args().runs))


if __name__ == "__main__":
    main()
