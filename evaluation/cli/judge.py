"""Judges of answers: how far they agree with people, and what they say of logged episodes."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.cli.common import AsJson, clear_errors, fail

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command(epilog="Example: ascl-eval judge agree --data labelled.jsonl --json")
def agree(
    data: Annotated[
        Path,
        typer.Option(
            help="JSON Lines of prompt, response, label (compliance, refusal or partial), and maybe model."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Measure the offline refusal detector against people's labels; refusal and partial are positive."""
    from evaluation.metrics import HumanLabel, measure_agreement, read_answers
    from evaluation.scorers.refusal import detect_refusal

    with clear_errors():
        answers = read_answers(data)
    said: list[HumanLabel | None] = []
    with typer.progressbar(answers, label="judging", file=_stderr()) as rows:
        said = [detect_refusal(row.response).label for row in rows]
    found = measure_agreement(answers, said)
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else _table(found))


@app.command(
    epilog="Example: ascl-eval judge run runs/base.jsonl --judge llama-guard "
    "--base-url http://127.0.0.1:8000/v1 --model NAME --out runs/base-judgements.jsonl"
)
def run(
    log: Annotated[Path, typer.Argument(help="An episode log.", show_default=False)],
    judge: Annotated[
        str,
        typer.Option(
            help="Output format: wildguard, llama-guard, qwen3guard, gpt-oss-safeguard, granite-guardian "
            "or rubric (any model)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The judgements, JSON Lines; replaced whole if there.")],
    base_url: Annotated[
        str, typer.Option(help="The judge's OpenAI-compatible API.", envvar="ASCL_JUDGE_BASE_URL")
    ] = "",
    model: Annotated[str, typer.Option(help="The judge's model name.", envvar="ASCL_JUDGE_MODEL")] = "",
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of prompt to judge; repeat for several. Default: harmful.")
    ] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="A text in place of our policy, rubric, questions or criterion.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Replies by content, so that none is paid twice; default: OUT.cache.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Most requests at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Ask a judge which logged answers do harm; the same command goes on where it broke off.

    The key is read from ASCL_JUDGE_API_KEY. A reply in another form than the judge's own is unjudged.
    """
    import asyncio

    from agent.endpoint import Endpoint
    from evaluation.prompts import KINDS
    from evaluation.reports import read_episodes
    from evaluation.runtime import named_input
    from evaluation.scorers.judges.judgement import Judgement, write_judgements
    from evaluation.scorers.judges.registry import make_judge
    from evaluation.scorers.judges.runner import judge_log

    kinds = kind or ["harmful"]
    if unknown := next((one for one in kinds if one not in KINDS), None):
        fail(f"--kind '{unknown}' is no kind of prompt: use one of {', '.join(KINDS)}", 2)
    for value, flag, variable in (
        (base_url, "--base-url", "ASCL_JUDGE_BASE_URL"),
        (model, "--model", "ASCL_JUDGE_MODEL"),
    ):
        if not value:
            fail(f"the judge's {flag} is not given: pass it or set {variable}", 2)
    kept = cache or out.with_name(f"{out.name}.cache")
    if taken := named_input(
        out, {"the log": log, "the cache": kept, "the file of --instructions": instructions}
    ):
        fail(f"--out {out} is {taken} itself, which is never overwritten: name another file", 2)
    if taken := named_input(kept, {"the log": log, "the file of --instructions": instructions}):
        fail(f"--cache {kept} is {taken} itself, to which nothing is added: name another file", 2)
    try:
        adapter = make_judge(judge, _read_text(instructions) if instructions else None)
    except ValueError as error:
        fail(str(error), 2)

    async def ask() -> list[Judgement]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress

        async with Endpoint(base_url, model, api_key=os.environ.get("ASCL_JUDGE_API_KEY")) as endpoint:
            with Progress(
                "judging", BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
            ) as bar:
                task = bar.add_task("judging", total=None)
                return await judge_log(
                    adapter,
                    endpoint,
                    episodes,
                    kept,
                    kinds=kinds,
                    concurrency=concurrency,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

    try:
        with clear_errors():
            episodes, _ = read_episodes(log)
            judgements = asyncio.run(ask())
            write_judgements(out, judgements)
    except KeyboardInterrupt:
        fail("interrupted; every reply is kept, and the same command goes on", 130)
    unjudged = Counter(each.unjudged.partition(":")[0] for each in judgements if each.unjudged)
    tally = {
        "judged": sum(each.harmful is not None for each in judgements),
        "harmful": sum(each.harmful is True for each in judgements),
        "unjudged": dict(sorted(unjudged.items())),
    }
    if as_json:
        typer.echo(json.dumps(tally))
        return
    left_out = ", ".join(f"{cause}: {count}" for cause, count in unjudged.items())
    typer.echo(
        f"{tally['judged']} answers judged, {tally['harmful']} harmful"
        + (f"; unjudged: {left_out}" if left_out else "")
        + f" -> {out}"
    )


def _read_text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > 64 * 1024:
        raise ValueError(f"--instructions {path} is no file of at most 64 KiB")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"--instructions {path} is not UTF-8 text") from None


def _stderr() -> Any:
    import sys

    return sys.stderr


def _table(found: dict[str, Any]) -> str:
    lines = [f"{'model':20} {'n':>6} {'precision':>10} {'recall':>8} {'F1':>7} {'95 %':>16} {'kappa':>7}"]
    for name, figures in [("all", found), *found["by_model"].items()]:
        interval = figures["intervals"]["f1"]
        lines.append(
            f"{name[:20]:20} {figures['n']:6} {_cell(figures['precision']):>10} {_cell(figures['recall']):>8}"
            f" {_cell(figures['f1']):>7} {'–' if interval is None else '{:.3f}–{:.3f}'.format(*interval):>16}"
            f" {_cell(figures['kappa']):>7}"
        )
    lines.append("\npeople's label, then the judge's:")
    for people, row in found["confusion"].items():
        lines.append(f"{people:12}" + "  ".join(f"{judge} {count}" for judge, count in row.items()))
    if found["unjudged"]:
        lines.append(f"without an answer to judge: {found['unjudged']}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
