"""TODO: docstring."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.cli.common import AsJson, clear_errors, fail, warn_of_skipped


def score(
    log: Annotated[Path, typer.Argument(help="An episode log.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The rewards, JSON Lines; replaced whole if there.")],
    prompts: Annotated[
        str | None, typer.Option(help="Prompts with an `answer` column: right answers are compared exactly.")
    ] = None,
    format_penalty: Annotated[
        float, typer.Option(min=0, help="Cost of a malformed call, an unfinished answer or stray thoughts.")
    ] = 0.2,
    judgements: Annotated[
        Path | None, typer.Option(help="What `ascl-eval judge run` wrote of this log; left out: no judge.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="People's corrections by episode id, JSON Lines; they stand over every judge."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score the outcome of every episode, offline; what cannot be judged is null and counted."""
    if not math.isfinite(format_penalty):
        fail(f"--format-penalty {format_penalty} is no amount: pass a number such as 0.2", 2)
    tally = _score(log, out, prompts, format_penalty, judgements, labels)
    if as_json:
        typer.echo(json.dumps(tally))
        return
    left_out = ", ".join(f"{cause}: {count}" for cause, count in tally["excluded"].items())
    typer.echo(
        f"{tally['scored']} of {tally['episodes']} episodes scored, mean reward "
        + (f"{tally['mean_reward']:.3f}" if tally["mean_reward"] is not None else "–")
        + (f"; without a reward: {left_out}" if left_out else "")
        + f" -> {out}"
    )
    if labels:
        typer.echo(
            f"{tally['corrected']} corrected by {labels}"
            + (f"; {tally['labels_unused']} labels are of no episode here" if tally["labels_unused"] else "")
        )


def _worked_over(rewards: Path) -> bool:
    """Whether rewards hold what scoring offline does not give: verdicts of a judge, or corrections."""
    from evaluation.metrics import is_unjudged
    from evaluation.scorers import read_rewards

    rows = read_rewards(rewards).values() if rewards.exists() else ()
    return any(row.corrected or "judge" in row.scorers or is_unjudged(row) for row in rows)


def _score(
    log: Path,
    out: Path,
    prompts: str | None,
    format_penalty: float,
    judgements: Path | None = None,
    labels: Path | None = None,
) -> dict[str, Any]:
    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.reports import iter_episodes
    from evaluation.runtime import named_input
    from evaluation.scorers import RewardCounts, Weights, read_labels, score_log, write_rewards
    from evaluation.scorers.judges.judgement import read_judgements

    skipped: list[Any] = []
    with clear_errors():
        asked = prompt_file(prompts) if prompts else None
        inputs = {"the log": log, "the judgements": judgements, "the labels": labels, "the prompts": asked}
        if taken := named_input(out, inputs):
            fail(
                f"--out {out} is the file of {taken} itself, which is never overwritten: name another file", 2
            )
        rows = load_prompts(asked) if asked else []
        references = {row.id: row.answer for row in rows if row.answer is not None}
        corrections = read_labels(labels) if labels else {}
        tally = RewardCounts(corrections.keys())
        scored = score_log(
            iter_episodes(log, skipped),
            Weights(format_penalty=format_penalty),
            references,
            read_judgements(judgements) if judgements else None,
            corrections,
        )
        write_rewards(out, tally.counting(scored))
        warn_of_skipped(log, skipped)
    return {
        "log": str(log),
        "out": str(out),
        "episodes": tally.episodes,
        "scored": tally.scored,
        "mean_reward": round(tally.total / tally.scored, 6) if tally.scored else None,
        "excluded": dict(sorted(tally.excluded.items())),
        "corrected": tally.corrected,
        "labels_unused": len(tally.unused),
        "skipped_lines": len(skipped),
    }
