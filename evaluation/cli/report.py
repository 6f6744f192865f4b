"""`ascl-eval report` and `ascl-eval compare`: metrics of arms, and two reports side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli.common import (
    AsJson,
    Overwrite,
    exit_on_error,
    fail,
    print_tables,
    refuse_existing,
    warn_of_skipped,
)


def report(
    arm: Annotated[
        list[str],
        typer.Option(help="NAME=LOG or NAME=LOG:REWARDS; repeatable, the baseline first."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for summary.json, report.html and consult_rates.png.")],
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompts, for contrast pairs and the expected rule categories (default: neither)."),
    ] = None,
    pair_by: Annotated[
        str | None,
        typer.Option(help="Column of --prompts that identifies contrast pairs (default: no pairs)."),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            help="JSON that maps a source's labels to rule categories (default: use the column `category`)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare arms: consult and refusal rates, rewards, and the gain from consulting, with intervals."""
    if prompts is None and (pair_by or label_map):
        fail("--pair-by and --label-map require --prompts: pass the prompts too", 2)
    from evaluation.reports import parse_arm

    with exit_on_error(2):
        arms = [parse_arm(text) for text in arm]
    check_names(arms, out)
    refuse_existing(out / "summary.json", overwrite)
    make_report(arms, out, as_json, ReportOptions(prompts, pair_by, label_map))


def compare(
    first: Annotated[Path, typer.Argument(help="Report folder or summary.json.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Report to compare with it.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Compare two reports: every rate and mean of the arms and kinds that both contain."""
    from evaluation.reports import compare_reports, read_summary, render

    with exit_on_error():
        comparison = compare_reports(read_summary(first), read_summary(second))
    if as_json:
        typer.echo(json.dumps(comparison, ensure_ascii=False))
        return
    table = (render.COMPARISON_COLUMNS, render.comparison_rows(comparison))
    print_tables(render.comparison_table(comparison), [table], render.comparison_notes(comparison))


@dataclass(frozen=True)
class ReportOptions:
    """The prompts of a report and how to read them."""

    prompts: str | None = None
    pair_by: str | None = None
    label_map: Path | None = None

    def as_flags(self) -> list[str]:
        """Returns the options as command-line flags."""
        flags = (("--prompts", self.prompts), ("--pair-by", self.pair_by), ("--label-map", self.label_map))
        return [part for flag, value in flags if value is not None for part in (flag, str(value))]


NamedLog = tuple[str, Path, Path | None]
"""An arm's name, its log, and its file of rewards if there is one."""


def check_names(arms: Sequence[NamedLog], out: Path) -> None:
    """Rejects names that a report cannot show, or cannot quote in the command that reproduces it."""
    from evaluation.reports import MAX_NAME

    names = [name for name, _, _ in arms]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        fail(f"two arms are called '{repeated}': give each --arm a unique name", 2)
    for name in names:
        if "=" in name or name != name.strip() or len(name) > MAX_NAME:
            fail(
                f"'{name[:MAX_NAME]}' cannot name an arm: use at most {MAX_NAME} characters, without '=' "
                "and without surrounding spaces",
                2,
            )
    for text in (str(part) for arm in (*arms, (out,)) for part in arm if part is not None):
        if text.encode(errors="replace").decode() != text:
            fail(f"{text!a} is not UTF-8 text, so a report cannot show it: use a different name", 2)


def make_report(arms: Sequence[NamedLog], out: Path, as_json: bool, options: ReportOptions) -> None:
    """Reads the arms, writes the report and prints it."""
    from evaluation.metrics import NO_METADATA, conversation_labels, prompt_metadata
    from evaluation.prompts import load_prompts
    from evaluation.reports import build_summary, conversation_summary, load_arm, render

    with exit_on_error():
        arm_data = [load_arm(*parts) for parts in arms]
        for arm in arm_data:
            warn_of_skipped(arm.log, arm.skipped)
        prompts = load_prompts(options.prompts, scripts=True) if options.prompts else []
        metadata = prompt_metadata(prompts, options.pair_by, options.label_map) if prompts else NO_METADATA
        summary = build_summary(arm_data, str(out), metadata, options.as_flags())
        if conversations := conversation_summary(arm_data, conversation_labels(prompts)):
            summary["conversations"] = conversations
        files = render.write_report(summary, out)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        print_tables(render.markdown_table(summary), render.tables(summary), render.notes(summary))
    typer.echo("wrote " + ", ".join(str(path) for path in files), err=True)
