"""`ascl-eval`: score logged episodes and report what a model does with the rules."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evaluation import edit_cli, judge_cli
from evaluation.terminal import AsJson, clear_errors, fail

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(judge_cli.app, name="judge")
app.command(
    "edit-rule",
    epilog="Example: ascl-eval edit-rule --rule cyber.administration --base-url http://127.0.0.1:8810/v1 "
    "--model NAME --out runs/edit",
)(edit_cli.edit_rule)

PromptSpec = Annotated[
    str,
    typer.Option(
        help="JSON Lines of prompts, builtin:held_out, builtin:train, or a data set: "
        "hub:OWNER/NAME?kind=harmful.",
        show_default=True,
    ),
]


@app.command(
    epilog="Example: ascl-eval run --log runs/base.jsonl --base-url http://127.0.0.1:8810/v1 --model NAME"
)
def run(
    log: Annotated[Path, typer.Option(help="Episodes are appended here; the same command continues it.")],
    prompts: PromptSpec = "builtin:held_out",
    base_url: Annotated[
        str, typer.Option(help="The model's OpenAI-compatible API.", envvar="OPENAI_BASE_URL")
    ] = "",
    model: Annotated[str, typer.Option(help="Model name.", envvar="ASCL_MODEL")] = "",
    rules: Annotated[
        str, typer.Option(help="MCP address of the rule service, or `none`.", envvar="ASCL_RULES_URL")
    ] = "http://127.0.0.1:8808/mcp",
    samples: Annotated[int, typer.Option(min=1, help="Episodes for each prompt.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Most episodes at once.")] = 8,
    temperature: Annotated[float | None, typer.Option(min=0, help="Sampling temperature.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one reply.")] = 512,
    max_turns: Annotated[int, typer.Option(min=1, help="Most model calls for one prompt.")] = 6,
    tool_mode: Annotated[
        Literal["native", "text"], typer.Option(help="`text` sends tool results back as a user message.")
    ] = "native",
    on_rules_error: Annotated[
        Literal["answer", "refuse", "fail"],
        typer.Option(help="What to do when the rules cannot be consulted."),
    ] = "fail",
    policy_version: Annotated[
        str, typer.Option(help="Your name for the state of the model; recorded.")
    ] = "base",
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="How the model may use the rules: none, in-prompt (their summaries in the system text), "
            "always (a forced first consultation) or adaptive; repeat for several, a log each."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of a single arm in the report; default: its kind.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; left out: LOG without .jsonl.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show every episode as it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run prompts through the agent, then score the episodes and report on them, in one go."""
    import asyncio

    from evaluation.arm_kinds import ARM_KINDS
    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.sampling import Policy, sample

    if not base_url:
        fail("no endpoint is given: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL", 2)
    if not model:
        fail("no model is given: pass --model NAME or set ASCL_MODEL", 2)
    kinds = [kind for kind in ARM_KINDS if kind in (arm or ["adaptive"])]
    if unknown := next((one for one in arm or [] if one not in ARM_KINDS), None):
        fail(f"--arm '{unknown}' is no arm: use one of {', '.join(ARM_KINDS)}", 2)
    if name and len(kinds) > 1:
        fail("--name names a single arm, but several are run: leave it out", 2)
    arms = _planned(log, kinds, name or (None if arm else "model"))
    folder = out or log.with_suffix("")
    if folder.is_file() or folder.resolve() in {own.resolve() for _, own, _ in arms}:
        fail(f"the report's folder would be {folder}, a file: pass --out FOLDER, or end --log in .jsonl", 2)
    _check_names(arms, folder)
    with clear_errors():
        path = prompt_file(prompts)
        load_prompts(path)
        judged = {rewards for _, _, rewards in arms if _worked_over(rewards)}
    policy = Policy(
        base_url=base_url,
        model=model,
        rules=None if rules == "none" else rules,
        policy_version=policy_version,
        tool_mode=tool_mode,
        on_rules_error=on_rules_error,
        max_turns=max_turns,
        sampling={
            key: value
            for key, value in {"temperature": temperature, "max_tokens": max_tokens}.items()
            if value is not None
        },
    )
    for kind, (_, own, rewards) in zip(kinds, arms, strict=True):
        if len(kinds) > 1:
            typer.echo(f"arm {kind} -> {own}", err=True)
        try:
            with clear_errors():
                one = replace(policy, arm=kind)
                asyncio.run(sample(one, path, own, samples=samples, concurrency=concurrency, trace=trace))
        except KeyboardInterrupt:
            fail("interrupted; what was finished is kept, and the same command goes on", 130)
        if rewards in judged:
            typer.echo(
                f"ascl-eval: {rewards} holds the word of a judge or of people, so it is kept as it is; "
                f"`ascl-eval score {own}` with the same --judgements and --labels scores new episodes too",
                err=True,
            )
        else:
            _score(own, rewards, prompts, 0.2)
    # Only our own prompts are sure to carry categories of a rulebook; a public set has labels of its own.
    ours = prompts if prompts.startswith("builtin:") else None
    _report(arms, folder, as_json, ReportOptions(prompts=ours))


@app.command(epilog="Example: ascl-eval score runs/train.jsonl --out runs/train-rewards.jsonl")
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


@app.command(
    epilog="Example: ascl-eval report --arm before=runs/a.jsonl --arm after=runs/b.jsonl --out runs/report"
)
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
    from evaluation.arms import parse_arm

    with clear_errors(2):
        arms = [parse_arm(text) for text in arm]
    _check_names(arms, out)
    _report(arms, out, as_json, ReportOptions(prompts, pair_by, label_map))


@app.command(epilog="Example: ascl-eval compare runs/monday runs/tuesday")
def compare(
    first: Annotated[Path, typer.Argument(help="A report's folder or summary.json.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Set two reports side by side: every rate and mean of the arms and kinds that both have."""
    from evaluation.comparison import compare as compared
    from evaluation.comparison import read_summary
    from evaluation.report import comparison

    with clear_errors():
        found = compared(read_summary(first), read_summary(second))
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else comparison(found))


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


def _planned(log: Path, kinds: Sequence[str], name: str | None) -> list[tuple[str, Path, Path]]:
    """The arms of a run: names, logs and rewards."""
    if log.name in ("", ".."):
        fail(f"--log {log} is a folder: name a file in it, such as {log / 'episodes.jsonl'}", 2)
    arms = []
    for kind in kinds:
        own = log if len(kinds) == 1 else log.with_name(f"{log.stem}-{kind}.jsonl")
        if own.is_dir():
            fail(f"--log {own} is a folder: name a file in it, such as {own / 'episodes.jsonl'}", 2)
        arms.append((name or kind, own, own.with_name(f"{own.stem}-rewards.jsonl")))
    return arms


def _check_names(arms: Sequence[NamedLog], out: Path) -> None:
    """Refuse what a report could not show, or could not name in the command that computes it again."""
    from evaluation.arms import MAX_NAME

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


def _worked_over(rewards: Path) -> bool:
    """Whether rewards hold what scoring offline does not give: verdicts of a judge, or corrections."""
    from evaluation.metrics import is_unjudged
    from evaluation.rewards import read_rewards

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
    from evaluation.arms import iter_episodes
    from evaluation.judges.judgement import read_judgements
    from evaluation.labels import read_labels
    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.rewards import Tally, Weights, score_log, write_rewards
    from evaluation.whole_file import named_input

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
        tally = Tally(corrections.keys())
        scored = score_log(
            iter_episodes(log, skipped),
            Weights(format_penalty=format_penalty),
            references,
            read_judgements(judgements) if judgements else None,
            corrections,
        )
        write_rewards(out, tally.counting(scored))
        _warn_of_skipped(log, skipped)
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


def _report(arms: Sequence[NamedLog], out: Path, as_json: bool, options: ReportOptions) -> None:
    from evaluation.arms import load_arm
    from evaluation.paired import NO_NOTES, prompt_notes
    from evaluation.prompts import load_prompts
    from evaluation.report import markdown, write_report
    from evaluation.summary import build_summary

    with clear_errors():
        loaded = [load_arm(*parts) for parts in arms]
        for one in loaded:
            _warn_of_skipped(one.log, one.skipped)
        notes = (
            prompt_notes(load_prompts(options.prompts), options.pair_by, options.label_map)
            if options.prompts
            else NO_NOTES
        )
        summary = build_summary(loaded, str(out), notes, options.as_options())
        written = write_report(summary, out)
    typer.echo(json.dumps(summary, ensure_ascii=False) if as_json else markdown(summary))
    typer.echo("wrote " + ", ".join(str(path) for path in written), err=True)


def _warn_of_skipped(log: Path, skipped: list[Any]) -> None:
    for line in skipped[:3]:
        typer.echo(
            f"ascl-eval: line {line.line} of {log} is no episode and is left out: {line.reason}", err=True
        )
    if len(skipped) > 3:
        typer.echo(f"ascl-eval: and {len(skipped) - 3} more lines of {log}", err=True)


def main() -> None:
    """Entry point of `ascl-eval`."""
    app()


if __name__ == "__main__":
    main()
