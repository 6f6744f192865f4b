"""TODO: docstring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli.common import AsJson, clear_errors, fail, warn_of_skipped


def report(
    arm: Annotated[
        list[str],
        typer.Option(help="NAME=LOG or NAME=LOG:REWARDS; repeat for arms side by side, the baseline first."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for summary.json, report.html and consult_rates.png.")],
    prompts: Annotated[
        str | None, typer.Option(help="The prompts, for contrast pairs and for what a retrieval should hit.")
    ] = None,
    pair_by: Annotated[
        str | None, typer.Option(help="Column of --prompts whose value the prompts of a contrast pair share.")
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option(help="JSON from a source's labels to our categories; default: `category`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare arms: consult and refusal rates, rewards, and what consulting gains, each with its interval."""
    if prompts is None and (pair_by or label_map):
        fail("--pair-by and --label-map say how to read --prompts: pass the prompts too", 2)
    from evaluation.reports import parse_arm

    with clear_errors(2):
        arms = [parse_arm(text) for text in arm]
    _check_names(arms, out)
    _report(arms, out, as_json, ReportOptions(prompts, pair_by, label_map))


def compare(
    first: Annotated[Path, typer.Argument(help="A report's folder or summary.json.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Set two reports side by side: every rate and mean of the arms and kinds that both have."""
    from evaluation.reports import compare_reports as compared
    from evaluation.reports import comparison_table, read_summary

    with clear_errors():
        found = compared(read_summary(first), read_summary(second))
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else comparison_table(found))


@dataclass(frozen=True)
class ReportOptions:
    """What a report is told of the prompts, beyond what the logs hold."""

    prompts: str | None = None
    pair_by: str | None = None
    label_map: Path | None = None

    def as_options(self) -> list[str]:
        """As they are written on the command line."""
        named = (("--prompts", self.prompts), ("--pair-by", self.pair_by), ("--label-map", self.label_map))
        return [part for name, value in named if value is not None for part in (name, str(value))]


NamedLog = tuple[str, Path, Path | None]
"""An arm's name, its log, and its rewards where they stand in a file."""


def _check_names(arms: Sequence[NamedLog], out: Path) -> None:
    """Refuse what a report could not show, or could not name in the command that computes it again."""
    from evaluation.reports import MAX_NAME

    names = [name for name, _, _ in arms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        fail(f"two arms are called '{twice}': give each --arm a name of its own", 2)
    for name in names:
        if "=" in name or name != name.strip() or len(name) > MAX_NAME:
            fail(
                f"'{name[:MAX_NAME]}' cannot name an arm: take at most {MAX_NAME} characters, without '=' "
                "and without space around them",
                2,
            )
    for given in (str(part) for arm in (*arms, (out,)) for part in arm if part is not None):
        if given.encode(errors="replace").decode() != given:
            fail(f"{given!a} is not UTF-8 text, so no report can name it: call it otherwise", 2)


def _report(arms: Sequence[NamedLog], out: Path, as_json: bool, options: ReportOptions) -> None:
    from evaluation.metrics import NO_METADATA, prompt_metadata
    from evaluation.prompts import load_prompts
    from evaluation.reports import build_summary, load_arm, markdown_table, write_report

    with clear_errors():
        loaded = [load_arm(*parts) for parts in arms]
        for one in loaded:
            warn_of_skipped(one.log, one.skipped)
        notes = (
            prompt_metadata(load_prompts(options.prompts), options.pair_by, options.label_map)
            if options.prompts
            else NO_METADATA
        )
        summary = build_summary(loaded, str(out), notes, options.as_options())
        written = write_report(summary, out)
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else markdown_table(summary))
    typer.echo("wrote " + ", ".join(str(path) for path in written), err=True)
