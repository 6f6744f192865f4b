"""The figures of the analysis as Markdown tables, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
_PARTS = ("own log-odds", "shared parameters", "shared parameters, all tokens")


def format_tables(figures: Figures) -> str:
    """Returns the figures as tables."""
    kinds = figures["kinds"]
    rewards = [
        [
            kind, each["prompts"], f"{each['probability_of_the_model']:.2f}", f"{each['probability']:.3f}",
            f"{each['reward_consult']:.2f}", f"{each['reward_direct']:.2f}", _interval(each["D"], 2),
            f"{each['variance_within_consult']:.3f}, {each['variance_within_direct']:.3f}",
            f"{each['variance_of_D_between_prompts']:.3f}", f"{each['equal_means']:.2f}",
        ]
        for kind, each in kinds.items()
    ]  # fmt: skip
    scalars = [
        [
            kind, name, _interval(each["mean"], 4), f"{each['sd']:.4f}",
            _interval(each["snr"], 2), _interval(each["snr_above_grpo"], 2), _count(each["groups_needed"]),
            f"{each['no_signal']:.2f}", f"{each['one_mode']:.2f}",
        ]
        for kind, values in kinds.items()
        for name, each in values["designs"].items()
    ]  # fmt: skip
    gap = [
        [
            name, _interval(each["speed"], 4), _interval(each["snr_per_update"], 2),
            "" if name == "GRPO" else _interval(each["minus_grpo"], 4),
            "" if name == "GRPO" else ", ".join(_count(value) for value in each["updates_to_tell"]),
            _count(each["updates_to_tell_all_tokens"]) if "updates_to_tell_all_tokens" in each else "",
        ]
        for name, each in figures["gap"].items()
    ]  # fmt: skip
    sign = [
        [name, *(_groups(each["groups_for_sign"].get(part)) for part in _PARTS)]
        for name, each in figures["gap"].items()
    ]
    rest = [
        [
            name, f"{each['norm_of_decision']:.4f}", f"{each['norm']:.4f}", f"{each['ratio']:.1f}",
            f"{each['gap_rms_of_decision']:.5f}", f"{each['gap_rms']:.5f}", f"{each['gap_mean']:+.5f}",
        ]
        for name, each in figures["rest"].items()
        if isinstance(each, dict)
    ]  # fmt: skip
    means = [
        [
            name, *(f"{each[kind]['share']:.3f}" for kind in ("harmful", "harmless")), f"{each['cosine']:.2f}"
        ]
        for name, each in figures["means"].items()
    ]  # fmt: skip
    cosines, transfer = (
        ", ".join(f"{name} {value:.2f}" for name, value in figures["directions"][part].items())
        for part in ("cosines", "transfer")
    )
    return "\n\n".join(
        [
            _table(
                ("kind", "prompts", "p of the model", "p", "reward: consult", "direct", "D",
                 "variance within: consult, direct", "of D between prompts", "equal means"),
                rewards,
            ),
            _table(
                ("kind", "method", "mean", "sd", "SNR", "above GRPO, in size", "groups to tell the sign",
                 "no signal", "one mode"),
                scalars,
            ),
            _table(
                ("method", "gap per update", "SNR per update", "minus GRPO", "updates to tell",
                 "with all tokens"),
                gap,
            ),
            "Groups that give the sign of the gap's gradient with a probability of 95 %:",
            _table(("method", *_PARTS), sign),
            _table(
                ("method", "norm: decision", "other tokens", "ratio", "gap, rms: decision", "other tokens",
                 "their mean"),
                rest,
            ),
            _table(("method", "mean's share: harmful", "harmless", "cosine of the means"), means),
            f"Gradients of the log-odds of two prompts: cosines {cosines}; transfer {transfer}.",
        ]
    )  # fmt: skip


def plot(figures: Figures, file: Path) -> None:
    """Plots the SNR per group by kind and method, with its intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.6, 3.6), layout="constrained")
    kinds = figures["kinds"]
    names = list(next(iter(kinds.values()))["designs"])
    for number, name in enumerate(names):
        values = [each["designs"][name]["snr"] for each in kinds.values()]
        middle, low, high = (list(column) for column in zip(*values, strict=True))
        places = [index + 0.12 * (number - len(names) / 2) for index in range(len(kinds))]
        errors = [
            [max(m - bottom, 0) for m, bottom in zip(middle, low, strict=True)],
            [max(top - m, 0) for m, top in zip(middle, high, strict=True)],
        ]
        axes.errorbar(places, middle, yerr=errors, fmt="o", capsize=3, label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), list(kinds))
    axes.set_ylabel("SNR of a group's decision gradient")
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


def _interval(value: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{each:.{digits}f}" for each in value)
    return f"{middle} [{low}, {high}]"


def _groups(values: Sequence[float | None] | None) -> str:
    if values is None:
        return ""
    middle, best, worst = ("never" if each is None else f"{each:,.0f}" for each in values)
    return f"{middle} [{best}, {worst}]"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else "more than a million"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
