"""Suites on the command line: their options, and the plan of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from evaluation.cli.common import exit_on_error, fail

SuiteNames = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        help="Suite to run in place of --prompts, such as xstest, or a group: paper, safety, over-refusal, "
        "utility; repeatable (default: none). `--suite paper --dry-run` lists them.",
    ),
]
SuiteLimit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Maximum prompts of each suite (default: all).")
]
SuiteData = Annotated[
    Path | None,
    typer.Option(
        "--suite-data",
        help="Folder with the downloaded data sets, OWNER/NAME/[CONFIG/]SPLIT.jsonl (default: fetch them).",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what the suites would fetch, ask and cost, and stop.")
]
_SHORT = {"refusal detector": "detector", "judge of harm": "judge", "reference answer": "reference"}


def suite_spec(names: Sequence[str], limit: int | None, data: Path | None) -> str:
    """Returns the specification of prompts for these options."""
    options = {key: str(value) for key, value in (("limit", limit), ("data", data)) if value is not None}
    return f"suite:{','.join(names)}" + (f"?{urlencode(options)}" if options else "")


def print_plan(
    names: Sequence[str],
    *,
    limit: int | None,
    samples: int,
    arms: int,
    turns: int,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Prints the plan of a run of suites. Exits if a suite is unknown, or if none is given."""
    import json

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from evaluation.prompts.suites import LEFT_OUT, find_suites, plan_suites

    if not names:
        fail("--dry-run plans a run of suites: pass --suite paper, or the name of a suite", 2)
    with exit_on_error():
        suites = find_suites([name for text in names for name in text.split(",")])
    plans = plan_suites(suites, limit=limit, samples=samples, arms=arms, turns=turns, max_tokens=max_tokens)
    if as_json:
        typer.echo(json.dumps({"suites": [plan.as_dict() for plan in plans], "left_out": LEFT_OUT}, indent=2))
        return
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("suite", "scored by", "licence", "gated"):
        table.add_column(name, no_wrap=True)
    table.add_column("episodes", justify="right", no_wrap=True)
    for plan in plans:
        suite = plan.suite
        row = (
            suite.name,
            " + ".join(_SHORT[by] for by in suite.scored_by),
            suite.licence,
            "yes" if suite.gated else "",
        )
        table.add_row(*row, f"{plan.episodes:,}")
    console.print(table)
    episodes = sum(plan.episodes for plan in plans)
    requests = sum(plan.request_tokens for plan in plans)
    replies = sum(plan.most_reply_tokens for plan in plans)
    typer.echo(f"{episodes:,} episodes, about {requests:,} request tokens without consultations,")
    typer.echo(f"at most {replies:,} reply tokens: multiply by your endpoint's prices.")
    typer.echo("Nothing was fetched.")
    for plan in plans:
        suite = plan.suite
        typer.echo(f"\n{suite.name}: {suite.title} ({suite.paper})")
        for source in suite.sources:
            typer.echo(f"  fetches {source.label}")
        for line in (suite.note, *(f"published: {one.figure} ({one.source})" for one in suite.published)):
            if line:
                typer.echo(f"  {line}")
    typer.echo("\nleft out:")
    for name, reason in LEFT_OUT.items():
        typer.echo(f"  {name}: {reason}")
