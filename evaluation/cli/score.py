"""`ascl-eval score`: scores the episodes of a log offline."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.common import AsJson, Overwrite, exit_on_error, fail, refuse_existing, warn_of_skipped

if TYPE_CHECKING:
    from agent.episode import SkippedLine


def score(
    log: Annotated[Path, typer.Argument(help="Episode log.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File of rewards (JSON Lines).")],
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompts with an `answer` column: answers are compared exactly (default: none)."),
    ] = None,
    format_penalty: Annotated[
        float,
        typer.Option(
            min=0,
            help="Penalty for a malformed call, an unfinished answer, or reasoning outside the opening think "
            "block.",
        ),
    ] = 0.2,
    judgements: Annotated[
        Path | None, typer.Option(help="Output of `ascl-eval judge run` for this log (default: no judge).")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Human corrections, JSON Lines by episode ID; they override every judge (default: none)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score every episode offline. An outcome that cannot be judged is recorded as null and counted."""
    if not math.isfinite(format_penalty):
        fail(f"--format-penalty {format_penalty} is not finite: pass a number such as 0.2", 2)
    options = ScoreOptions(prompts, format_penalty, judgements, labels)
    _refuse_input(log, out, options)
    refuse_existing(out, overwrite)
    counts = score_to_file(log, out, options)
    typer.echo(json.dumps(counts) if as_json else _summary(counts))
    if labels and not as_json:
        unused = counts["labels_unused"]
        typer.echo(
            f"{counts['corrected']} corrected by {labels}"
            + (f"; {unused} labels match no episode in this log" if unused else "")
        )


@dataclass(frozen=True)
class ScoreOptions:
    """Inputs of scoring, besides the log."""

    prompts: str | None = None
    format_penalty: float = 0.2
    judgements: Path | None = None
    labels: Path | None = None


def has_verdicts(rewards: Path) -> bool:
    """Returns whether a rewards file contains verdicts or corrections, which offline scoring would lose."""
    from evaluation.metrics import is_unjudged
    from evaluation.scorers import read_rewards

    rows = read_rewards(rewards).values() if rewards.exists() else ()
    return any(row.corrected or "judge" in row.scorers or is_unjudged(row) for row in rows)


def _refuse_input(log: Path, out: Path, options: ScoreOptions) -> None:
    from evaluation.prompts import prompt_file
    from evaluation.runtime import named_input

    with exit_on_error():
        prompts = prompt_file(options.prompts, scripts=True) if options.prompts else None
        inputs = {"log": log, "judgements": options.judgements, "labels": options.labels, "prompts": prompts}
        if name := named_input(out, inputs):
            fail(
                f"--out {out} is also the input file of the {name}, which is never overwritten: "
                "specify a different file",
                2,
            )


def score_to_file(log: Path, out: Path, options: ScoreOptions) -> dict[str, Any]:
    """Scores a log, writes the rewards and returns the counts."""
    from evaluation.metrics import unscored_turns
    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.reports import iter_episodes
    from evaluation.scorers import (
        RewardCounts,
        Weights,
        models_that_open_in_reasoning,
        read_labels,
        score_log,
        write_rewards,
    )
    from evaluation.scorers.judges.judgement import read_judgements

    skipped: list[SkippedLine] = []
    with exit_on_error():
        prompts = prompt_file(options.prompts, scripts=True) if options.prompts else None
        rows = load_prompts(prompts, scripts=True) if prompts else []
        corrections = read_labels(options.labels) if options.labels else {}
        counts = RewardCounts(corrections.keys())
        rewards = score_log(
            iter_episodes(log, skipped),
            Weights(format_penalty=options.format_penalty),
            {row.id: row.answer for row in rows if row.answer is not None},
            read_judgements(options.judgements) if options.judgements else None,
            corrections,
            {row.id: row.prompt for row in rows},
            unscored_turns(rows),
            models_that_open_in_reasoning(iter_episodes(log, [])),
        )
        write_rewards(out, counts.count(rewards))
        warn_of_skipped(log, skipped)
    return {"log": str(log), "out": str(out), **counts.as_dict(), "skipped_lines": len(skipped)}


def _summary(counts: dict[str, Any]) -> str:
    excluded = ", ".join(f"{cause}: {count}" for cause, count in counts["excluded"].items())
    mean = f"{counts['mean_reward']:.3f}" if counts["mean_reward"] is not None else "–"
    return (
        f"{counts['scored']} of {counts['episodes']} episodes scored, mean reward {mean}"
        + (f"; without a reward: {excluded}" if excluded else "")
        + f" -> {counts['out']}"
    )
