"""TODO: docstring."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli.common import AsJson, clear_errors, fail

if TYPE_CHECKING:
    from evaluation.metrics import Difference
    from trainer.groups.statistics import GroupStatistics


def prepare(
    log: Annotated[Path, typer.Argument(help="An episode log.", show_default=False)],
    rewards: Annotated[Path, typer.Argument(help="Its rewards, by `ascl-eval score`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The groups, Parquet; replaced whole if there.")],
    alpha: Annotated[float, typer.Option(min=0, help="0 is GRPO; 1 gives every mode the same weight.")] = 1.0,
    w_max: Annotated[float, typer.Option(help="Bound on a weight before scaling.")] = 4.0,
    baseline: Annotated[
        Literal["balanced", "group"], typer.Option(help="Which mean to subtract.")
    ] = "balanced",
    scale_rewards: Annotated[
        Literal["group", "batch", "none"], typer.Option(help="Which standard deviation divides.")
    ] = "group",
    keep_forced: Annotated[
        bool,
        typer.Option(
            "--keep-forced", help="Groups of a run with --mode-share: keep episodes brought into a mode."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make groups of logged episodes with their advantages; count by cause what cannot be used."""
    from trainer.groups.parquet import AdvantageSettings
    from trainer.groups.prepare import prepare as make_groups
    from trainer.groups.statistics import group_statistics

    if not w_max > 0:
        fail(f"--w-max is {w_max}, but it must be above 0", 2)
    if out.resolve() in (log.resolve(), rewards.resolve()):
        fail(f"--out {out} is one of the files to read, which are never overwritten: name another", 2)
    settings = AdvantageSettings(alpha=alpha, w_max=w_max, baseline=baseline, scale_rewards=scale_rewards)
    with clear_errors():
        made = make_groups(log, rewards, out, settings, keep_forced=keep_forced)
        statistics = group_statistics(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(made), **statistics.as_json()}))
        return
    typer.echo(f"{made.episodes} episodes in {made.groups} groups -> {out}")
    for cause, count in made.left_out.items():
        typer.echo(f"  left out, {cause}: {count}")
    if made.corrected:
        typer.echo(f"  corrected by people: {made.corrected}")
    _show(statistics)


def stats(
    groups: Annotated[Path, typer.Argument(help="A file by `ascl-train prepare`.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what groups can teach: consult rates, rewards, what consulting gains, and their make-up."""
    from trainer.groups.statistics import group_statistics

    with clear_errors():
        statistics = group_statistics(groups)
    if as_json:
        typer.echo(json.dumps(statistics.as_json()))
    else:
        _show(statistics)


def _show(statistics: GroupStatistics) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "episodes", "groups", "consult rate", "mean reward", "consulting", "direct", "D")
    for name, kind in statistics.kinds.items():
        rate = kind.consult
        table.add_row(
            name,
            str(kind.episodes),
            str(kind.groups),
            f"{rate.share:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.n else "–",
            f"{kind.reward:.2f}",
            *(
                "–" if value is None else f"{value:.2f}"
                for value in (kind.reward_consult, kind.reward_direct)
            ),
            _difference(kind.gain),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{statistics.groups} groups: {statistics.one_mode_groups} of one mode only, "
        f"{statistics.equal_reward_groups} with equal rewards (they teach nothing), "
        f"{statistics.teaching_groups} that compare the modes; "
        f"largest weight {statistics.largest_weight:.2f}, effective share {statistics.effective_share:.2f}",
        soft_wrap=True,
    )
    for method, push in statistics.push.items():
        console.print(
            f"sum of advantages by {method}: consult {push['consult']:+.1f}, direct {push['direct']:+.1f}"
        )
    if statistics.failed_consultations:
        console.print(f"{statistics.failed_consultations} calls of the rule tool got no verdict")
    for finding in statistics.findings:
        console.print(finding, soft_wrap=True)


def _difference(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    interval = "" if gain.low is None or gain.high is None else f" [{gain.low:+.2f}, {gain.high:+.2f}]"
    return f"{gain.value:+.2f}{interval}"
