"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from evaluation.cli.common import AsJson, PromptSpec, clear_errors, fail
from evaluation.cli.report import ReportOptions, _check_names, _report
from evaluation.cli.score import _score, _worked_over


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

    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.sampling import ARM_KINDS, Policy, sample

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
