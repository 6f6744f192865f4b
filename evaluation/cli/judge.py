"""Run judges on logged episodes, and measure how well they and the refusal detector agree with people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.common import AsJson, Overwrite, exit_on_error, fail, refuse_existing

if TYPE_CHECKING:
    from evaluation.scorers.judges.judgement import Judgement
    from evaluation.scorers.judges.options import JudgeOptions

JUDGE, HARM_JUDGE = "The judge", "Judge of harm"

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command(
    epilog="Example: ascl-eval judge agree --data labelled.jsonl; for a judge of harm: ascl-eval judge agree "
    "--judgements runs/base-judgements.jsonl --labels runs/labels.jsonl --log runs/base.jsonl"
)
def agree(
    data: Annotated[
        Path | None,
        typer.Option(
            help="For the refusal detector: JSON Lines with `prompt`, `response`, `label` (compliance, "
            "refusal or partial) and optionally `model` (default: none).",
            rich_help_panel="Refusal detector",
        ),
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(help="Output of `ascl-eval judge run` (default: none).", rich_help_panel=HARM_JUDGE),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Human labels with `harmful`, as `ascl-eval label` writes them (default: none).",
            rich_help_panel=HARM_JUDGE,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Log of the judged episodes, so that intervals count samples of one prompt together "
            "(default: each episode counts alone).",
            rich_help_panel=HARM_JUDGE,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well the refusal detector, or a judge of harm, agrees with human labels.

    The labels `refusal` and `partial`, or `harmful`, count as positive.
    """
    if (data is None) == (judgements is None) or (judgements is None) != (labels is None):
        fail("pass --data for the refusal detector, or --judgements and --labels for a judge of harm", 2)
    with exit_on_error():
        if data is not None:
            agreement = _refusal_agreement(data)
        else:
            assert judgements is not None
            assert labels is not None
            agreement = _harm_agreement(judgements, labels, log)
    typer.echo(json.dumps(agreement, ensure_ascii=False) if as_json else _table(agreement))


def _refusal_agreement(data: Path) -> dict[str, Any]:
    from evaluation.metrics import HumanLabel, measure_agreement, read_answers
    from evaluation.scorers.refusal import detect_refusal

    answers = read_answers(data)
    found: list[HumanLabel | None] = []
    with typer.progressbar(answers, label="judging", file=sys.stderr) as rows:
        found = [detect_refusal(row.response).label for row in rows]
    return measure_agreement(answers, found)


def _harm_agreement(judgements: Path, labels: Path, log: Path | None) -> dict[str, Any]:
    from evaluation.metrics import measure_harm_agreement
    from evaluation.reports import read_episodes
    from evaluation.scorers import read_labels
    from evaluation.scorers.judges.judgement import read_judgements

    verdicts = {id: judgement.harmful for id, judgement in read_judgements(judgements).items()}
    harmful = {id: row.harmful for id, row in read_labels(labels).items() if row.harmful is not None}
    prompts = {episode.id: episode.prompt_id for episode in read_episodes(log)[0]} if log else {}
    return measure_harm_agreement(verdicts, harmful, prompts)


@app.command(
    epilog="Example: ascl-eval judge run runs/base.jsonl --judge llama-guard "
    "--base-url http://127.0.0.1:8000/v1 --model NAME --out runs/base-judgements.jsonl"
)
def run(
    log: Annotated[Path, typer.Argument(help="Episode log.", show_default=False)],
    judge: Annotated[
        str,
        typer.Option(
            help="Judge type, which sets the prompt and output format: wildguard, llama-guard, qwen3guard, "
            "gpt-oss-safeguard, granite-guardian or rubric (any model).",
            rich_help_panel=JUDGE,
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of judgements (JSON Lines).")],
    base_url: Annotated[
        str,
        typer.Option(
            help="The judge's OpenAI-compatible API.", envvar="ASCL_JUDGE_BASE_URL", rich_help_panel=JUDGE
        ),
    ] = "",
    model: Annotated[
        str, typer.Option(help="The judge's model name.", envvar="ASCL_JUDGE_MODEL", rich_help_panel=JUDGE)
    ] = "",
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of prompt to judge; repeatable (default: harmful).")
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(
            help="File that replaces the judge's policy, rubric or criterion (default: built in).",
            rich_help_panel=JUDGE,
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File of replies, reused by later runs (default: OUT.cache).")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Maximum concurrent requests.", rich_help_panel=JUDGE)
    ] = 8,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Ask a judge which logged answers are harmful. If interrupted, rerun the same command to resume.

    The API key is read from ASCL_JUDGE_API_KEY. A reply that cannot be parsed counts as unjudged.
    """
    from evaluation.scorers.judges.judgement import count_judgements
    from evaluation.scorers.judges.options import JudgeOptions

    kinds = kind or ["harmful"]
    options = JudgeOptions(judge, base_url, model, kinds, instructions, cache, concurrency)
    counts = count_judgements(_judge(options, log, out, overwrite))
    typer.echo(json.dumps(counts) if as_json else _summary(counts, out))


def _judge(options: JudgeOptions, log: Path, out: Path, overwrite: bool) -> list[Judgement]:
    """Checks the options, judges the log and writes the judgements."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    from evaluation.prompts import KINDS
    from evaluation.reports import read_episodes
    from evaluation.scorers.judges.judgement import write_judgements
    from evaluation.scorers.judges.runner import judge_with_options

    if unknown := next((kind for kind in options.kind if kind not in KINDS), None):
        fail(f"--kind '{unknown}' is not a kind of prompt: use one of {', '.join(KINDS)}", 2)
    with exit_on_error(2):
        options.check(log, out)
        options.adapter()
    refuse_existing(out, overwrite)
    bar = Progress("judging", BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True)
    try:
        with exit_on_error():
            episodes, _ = read_episodes(log)
            with bar:
                task = bar.add_task("judging", total=None)
                judgements = judge_with_options(
                    options,
                    episodes,
                    out,
                    lambda count, total: bar.update(task, completed=count, total=total),
                )
            write_judgements(out, judgements)
    except KeyboardInterrupt:
        fail("interrupted; all replies are saved: rerun the same command to resume", 130)
    return judgements


def _summary(counts: dict[str, Any], out: Path) -> str:
    unjudged = ", ".join(f"{cause}: {count}" for cause, count in counts["unjudged"].items())
    return (
        f"{counts['judged']} answers judged, {counts['harmful']} harmful"
        + (f"; unjudged: {unjudged}" if unjudged else "")
        + f" -> {out}"
    )


def _table(agreement: dict[str, Any]) -> str:
    lines = [f"{'model':20} {'n':>6} {'precision':>10} {'recall':>8} {'F1':>7} {'95 %':>16} {'kappa':>7}"]
    for name, scores in [("all", agreement), *agreement["by_model"].items()]:
        interval = scores["intervals"]["f1"]
        lines.append(
            f"{name[:20]:20} {scores['n']:6} {_cell(scores['precision']):>10} {_cell(scores['recall']):>8}"
            f" {_cell(scores['f1']):>7} {'–' if interval is None else '{:.3f}–{:.3f}'.format(*interval):>16}"
            f" {_cell(scores['kappa']):>7}"
        )
    lines.append("\nhuman label: labels found")
    for label, row in agreement["confusion"].items():
        lines.append(f"{label:12}" + "  ".join(f"{name} {count}" for name, count in row.items()))
    if agreement["unjudged"]:
        lines.append(f"without an answer to judge: {agreement['unjudged']}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
