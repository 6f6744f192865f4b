"""`ascl-train prepare` and `stats`: compute groups from a log, and print their statistics."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli.common import AsJson, Overwrite, exit_on_error, fail, refuse_existing

if TYPE_CHECKING:
    from evaluation.metrics import Difference
    from trainer.groups.prepare import PreparedGroups
    from trainer.groups.statistics import GroupStatistics


def prepare(
    log: Annotated[Path, typer.Argument(help="Episode log.", show_default=False)],
    rewards: Annotated[
        Path, typer.Argument(help="Rewards of the log, from `ascl-eval score`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Groups file to write (Parquet).")],
    alpha: Annotated[
        float,
        typer.Option(
            min=0, help="Exponent of the mode weights: 0 is GRPO, 1 gives every mode the same total weight."
        ),
    ] = 1.0,
    w_max: Annotated[float, typer.Option(help="Upper bound on a weight, before scaling.")] = 4.0,
    baseline: Annotated[
        Literal["balanced", "group"],
        typer.Option(
            help="Mean to subtract from the rewards. `balanced`: weighted group mean; `group`: plain group "
            "mean."
        ),
    ] = "balanced",
    scale_rewards: Annotated[
        Literal["group", "batch", "none"],
        typer.Option(
            help="Standard deviation to divide by: per `group`, per `batch`, or `none` (no scaling)."
        ),
    ] = "group",
    keep_forced: Annotated[
        bool,
        typer.Option(
            "--keep-forced", help="Keep episodes with a forced mode, for logs sampled with --mode-share."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compute groups with advantages from a scored log. Counts excluded episodes by cause."""
    from trainer.groups.parquet import AdvantageSettings
    from trainer.groups.prepare import prepare_groups
    from trainer.groups.statistics import group_statistics
    from trainer.stages import make_notifier

    if not w_max > 0:
        fail(f"--w-max is {w_max}, but it must be above 0", 2)
    if out.resolve() in (log.resolve(), rewards.resolve()):
        fail(f"--out {out} is an input file, and inputs are never overwritten: specify a different file", 2)
    refuse_existing(out, overwrite)
    settings = AdvantageSettings(alpha=alpha, w_max=w_max, baseline=baseline, scale_rewards=scale_rewards)
    with exit_on_error():
        prepared = prepare_groups(
            log, rewards, out, settings, keep_forced=keep_forced, notify=make_notifier("prepare")
        )
        statistics = group_statistics(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(prepared), **statistics.as_json()}))
        return
    _print_prepared(prepared, out)
    _print_statistics(statistics)


def stats(
    groups: Annotated[
        Path, typer.Argument(help="Groups file from `ascl-train prepare`.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Print statistics of groups: consult rates, rewards, the gain from consulting, and the mix of modes."""
    from trainer.groups.statistics import group_statistics

    with exit_on_error():
        statistics = group_statistics(groups)
    if as_json:
        typer.echo(json.dumps(statistics.as_json()))
    else:
        _print_statistics(statistics)


def _print_prepared(prepared: PreparedGroups, out: Path) -> None:
    from trainer.groups.exclusions import exclusion_remedies
    from trainer.tokens.modes import format_modes

    typer.echo(f"{prepared.episodes} episodes in {prepared.groups} groups -> {out}")
    remedies = exclusion_remedies(prepared.left_out)
    for cause, count in prepared.left_out.items():
        modes = format_modes(prepared.left_out_by_mode[cause])
        remedy = f". {remedies[cause]}" if cause in remedies else ""
        typer.echo(f"  excluded ({cause}): {count} ({modes}){remedy}")
    if prepared.corrected:
        typer.echo(f"  human-corrected: {prepared.corrected}")


def _print_statistics(statistics: GroupStatistics) -> None:
    from rich.console import Console

    from agent.cli.tables import print_columns

    rows = []
    for name, kind in statistics.kinds.items():
        rate, means = kind.consult, (kind.reward_consult, kind.reward_direct)
        rows.append(
            [
                name,
                str(kind.episodes),
                str(kind.groups),
                f"{rate.share:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–",
                f"{kind.reward:.2f}",
                *("–" if value is None else f"{value:.2f}" for value in means),
                _format_difference(kind.gain),
            ]
        )
    headings = ("kind", "episodes", "groups", "consult rate", "mean reward", "consulting", "direct", "D")
    print_columns(headings, rows, cut=(0,))
    console = Console(highlight=False)
    console.print(
        f"{statistics.groups} groups: {statistics.one_mode_groups} with one mode only, "
        f"{statistics.equal_reward_groups} with equal rewards (no training signal), "
        f"{statistics.teaching_groups} that contrast the modes; "
        f"largest weight {statistics.largest_weight:.2f}, effective share {statistics.effective_share:.2f}",
        soft_wrap=True,
    )
    for method, push in statistics.push.items():
        console.print(
            f"sum of advantages by {method}: consult {push['consult']:+.1f}, direct {push['direct']:+.1f}"
        )
    if statistics.failed_consultations:
        console.print(f"{statistics.failed_consultations} rule tool calls returned no result")
    for finding in statistics.findings:
        console.print(finding, soft_wrap=True)


def _format_difference(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    interval = "" if gain.low is None or gain.high is None else f" [{gain.low:+.2f}, {gain.high:+.2f}]"
    return f"{gain.value:+.2f}{interval}"
