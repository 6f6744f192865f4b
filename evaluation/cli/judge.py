"""Run judges on logged episodes, and measure how well the refusal detector agrees with human labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.common import AsJson, exit_on_error, fail

if TYPE_CHECKING:
    from evaluation.scorers.judges.judgement import Judgement
    from evaluation.scorers.judges.options import JudgeOptions

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command(epilog="Example: ascl-eval judge agree --data labelled.jsonl --json")
def agree(
    data: Annotated[
        Path,
        typer.Option(
            help="JSON Lines with `prompt`, `response`, `label` (compliance, refusal or partial) and "
            "optionally `model`."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Measure how well the refusal detector agrees with human labels.

    The labels `refusal` and `partial` count as positive.
    """
    from evaluation.metrics import HumanLabel, measure_agreement, read_answers
    from evaluation.scorers.refusal import detect_refusal

    with exit_on_error():
        answers = read_answers(data)
    labels: list[HumanLabel | None] = []
    with typer.progressbar(answers, label="judging", file=sys.stderr) as rows:
        labels = [detect_refusal(row.response).label for row in rows]
    agreement = measure_agreement(answers, labels)
    typer.echo(json.dumps(agreement, ensure_ascii=False) if as_json else _table(agreement))


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
            "gpt-oss-safeguard, granite-guardian or rubric (any model)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of judgements (JSON Lines); replaced if it exists.")],
    base_url: Annotated[
        str, typer.Option(help="The judge's OpenAI-compatible API.", envvar="ASCL_JUDGE_BASE_URL")
    ] = "",
    model: Annotated[str, typer.Option(help="The judge's model name.", envvar="ASCL_JUDGE_MODEL")] = "",
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of prompt to judge; repeatable (default: harmful).")
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="File that replaces the built-in policy, rubric or criterion.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File of replies, reused by later runs (default: OUT.cache).")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Maximum concurrent requests.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Ask a judge which logged answers are harmful. If interrupted, rerun the same command to resume.

    The API key is read from ASCL_JUDGE_API_KEY. A reply that cannot be parsed counts as unjudged.
    """
    from evaluation.scorers.judges.judgement import count_judgements
    from evaluation.scorers.judges.options import JudgeOptions

    kinds = kind or ["harmful"]
    options = JudgeOptions(judge, base_url, model, kinds, instructions, cache, concurrency)
    counts = count_judgements(_judge(options, log, out))
    typer.echo(json.dumps(counts) if as_json else _summary(counts, out))


def _judge(options: JudgeOptions, log: Path, out: Path) -> list[Judgement]:
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
    lines.append("\nhuman label: detector labels")
    for label, row in agreement["confusion"].items():
        lines.append(f"{label:12}" + "  ".join(f"{name} {count}" for name, count in row.items()))
    if agreement["unjudged"]:
        lines.append(f"without an answer to judge: {agreement['unjudged']}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
