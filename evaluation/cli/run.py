"""`ascl-eval run`: samples the arms of one model, scores the episodes and reports on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    DEFAULT_RULES_URL,
    RULES,
    SAMPLING,
    BaseUrl,
    HistoryChoice,
    MaxTokens,
    MaxTurns,
    Model,
    NewServer,
    OnRulesError,
    PolicyVersion,
    RulesUrl,
    Temperature,
    ToolMode,
)
from evaluation.cli.common import AsJson, PromptSpec, exit_on_error, fail
from evaluation.cli.report import ReportOptions, check_names, make_report
from evaluation.cli.score import ScoreOptions, has_verdicts, score_to_file
from evaluation.cli.suites import DryRun, SuiteData, SuiteLimit, SuiteNames, print_plan, suite_spec

if TYPE_CHECKING:
    from evaluation.sampling import ArmRun

NO_ENDPOINT = "missing endpoint: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL"
NO_MODEL = "missing model: pass --model NAME or set ASCL_MODEL"


def run(
    log: Annotated[Path, typer.Option(help="Log to append episodes to; rerun the same command to resume.")],
    prompts: PromptSpec = "builtin:held_out",
    base_url: BaseUrl = "",
    model: Model = "",
    rules_url: RulesUrl = DEFAULT_RULES_URL,
    samples: Annotated[int, typer.Option(min=1, help="Episodes per prompt.", rich_help_panel=SAMPLING)] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Maximum concurrent episodes.")] = 8,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = 512,
    max_turns: MaxTurns = 6,
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "fail",
    policy_version: PolicyVersion = "base",
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="How the model may use the rules: none, in-prompt (their summaries in the system prompt), "
            "always (a forced first consultation), adaptive or hinted (adaptive, with a line about the rules "
            "near the prompt); repeatable, each arm gets its own log (default: adaptive).",
            rich_help_panel=RULES,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of a single arm in the report (default: its kind).")
    ] = None,
    suite: SuiteNames = None,
    limit: SuiteLimit = None,
    suite_data: SuiteData = None,
    dry_run: DryRun = False,
    out: Annotated[Path | None, typer.Option(help="Report folder (default: LOG without .jsonl).")] = None,
    history: HistoryChoice = "full",
    new_server: NewServer = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print every episode when it finishes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run prompts through the agent, then score the episodes and report on them.

    \f
    Long because it declares one parameter per flag.
    """
    from evaluation.sampling import Policy, plan_arms

    if suite:
        prompts = suite_spec(suite, limit, suite_data)
    elif limit is not None or suite_data is not None:
        fail("--limit and --suite-data apply to suites: pass --suite too, or leave them out", 2)
    if dry_run:
        print_plan(
            suite or [],
            limit=limit,
            samples=samples,
            arms=len(arm or ["adaptive"]),
            turns=max_turns,
            max_tokens=max_tokens,
            as_json=as_json,
        )
        return
    if not base_url:
        fail(NO_ENDPOINT, 2)
    if not model:
        fail(NO_MODEL, 2)
    policy = Policy(
        base_url=base_url,
        model=model,
        rules=None if rules_url == "none" else rules_url,
        policy_version=policy_version,
        tool_mode=tool_mode,
        on_rules_error=on_rules_error,
        max_turns=max_turns,
        sampling=({} if temperature is None else {"temperature": temperature}) | {"max_tokens": max_tokens},
        history=history,
        new_server=new_server,
    )
    with exit_on_error(2):
        arms = plan_arms(policy, log, arm, name)
    options = RunOptions(prompts, samples, concurrency, trace)
    folder = out or log.with_suffix("")
    _check_folder(arms, folder)
    _sample_and_score(arms, options)
    # A file of prompts may have its own categories. Built-in prompts name those of the rulebook, and
    # conversations name rules.
    described = prompts if prompts.startswith("builtin:") or _has_conversations(prompts) else None
    make_report([_named_log(arm_run) for arm_run in arms], folder, as_json, ReportOptions(prompts=described))


def _has_conversations(prompts: str) -> bool:
    from evaluation.prompts import load_prompts

    with exit_on_error():
        return any(prompt.turns[-1].number > 1 for prompt in load_prompts(prompts, scripts=True))


@dataclass(frozen=True)
class RunOptions:
    """Sampling options of all arms of a run."""

    prompts: str
    samples: int
    concurrency: int
    trace: bool


def _named_log(arm: ArmRun) -> tuple[str, Path, Path | None]:
    return arm.name, arm.log, arm.rewards


def _check_folder(arms: Sequence[ArmRun], folder: Path) -> None:
    """Refuses a report that could not be written, before any request is paid for."""
    if folder.is_file() or folder.resolve() in {arm.log.resolve() for arm in arms}:
        fail(f"the report's folder would be {folder}, a file: pass --out FOLDER, or end --log in .jsonl", 2)
    check_names([_named_log(arm) for arm in arms], folder)


def _sample_and_score(arms: Sequence[ArmRun], options: RunOptions) -> None:
    """Samples and scores the arms one by one. Does not replace rewards that contain verdicts."""
    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.sampling import sample

    with exit_on_error():
        path = prompt_file(options.prompts, scripts=True)
        load_prompts(path, scripts=True)
        judged = {arm.rewards for arm in arms if has_verdicts(arm.rewards)}
    for arm in arms:
        if len(arms) > 1:
            typer.echo(f"arm {arm.policy.arm} -> {arm.log}", err=True)
        try:
            with exit_on_error():
                asyncio.run(
                    sample(
                        arm.policy,
                        path,
                        arm.log,
                        samples=options.samples,
                        concurrency=options.concurrency,
                        trace=options.trace,
                    )
                )
        except KeyboardInterrupt:
            fail("interrupted; finished episodes are saved: rerun the same command to resume", 130)
        if arm.rewards in judged:
            typer.echo(
                f"ascl-eval: {arm.rewards} contains judge verdicts or corrections, so it is not replaced; "
                "to score new episodes too, run `ascl-eval score` with --overwrite and the same verdicts",
                err=True,
            )
        else:
            score_to_file(arm.log, arm.rewards, ScoreOptions(options.prompts))
