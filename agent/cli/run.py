"""`ascl-agent run`: samples episodes for many prompts into a log."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    DEFAULT_RULES_URL,
    FORCED,
    RULES,
    SAMPLING,
    ApiChoice,
    AsJson,
    BaseUrl,
    DecisionBias,
    DecisionToken,
    Hinted,
    HistoryChoice,
    MaxConsultations,
    MaxSeconds,
    MaxTokens,
    MaxTotalTokens,
    MaxTurns,
    Model,
    NewServer,
    OnRulesError,
    PolicyVersion,
    Provider,
    RulesUrl,
    SystemFile,
    Temperature,
    TemplateOptions,
    Timeout,
    ToolMode,
    TopP,
    exit_on_error,
    fail,
    read_system,
    run_with_services,
    sampling_fields,
)

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.rollout import ModeShare, RunSummary
    from agent.tools import RulesClient

PromptsOption = Annotated[
    Path,
    typer.Option(
        help="JSON Lines with a `prompt`, the `messages` of a conversation or a script of `user_turns`, and "
        "optionally `id` and `kind`."
    ),
]
LogOption = Annotated[Path, typer.Option(help="Log to append episodes to; rerun the same command to resume.")]
Samples = Annotated[int, typer.Option(min=1, help="Episodes per prompt.", rich_help_panel=SAMPLING)]
Concurrency = Annotated[int, typer.Option(min=1, max=1024, help="Maximum concurrent episodes.")]
Seed = Annotated[
    int | None, typer.Option(help="Send seed + k with sample k (default: no seed).", rich_help_panel=SAMPLING)
]
ModeShares = Annotated[
    list[str] | None,
    typer.Option(
        help="Share of each group to force into a mode: consult=0.25, direct=0.25, or both (default: none).",
        rich_help_panel=FORCED,
    ),
]
CallToken = Annotated[
    int | None,
    typer.Option(
        help="ID of the token that starts a call; its logit is lowered in samples forced to answer directly "
        "(default: no logit is changed).",
        rich_help_panel=FORCED,
    ),
]
DirectDraws = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        help="Maximum attempts to sample a reply that does not consult (default: 8).",
        rich_help_panel=FORCED,
    ),
]
HintShare = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of the prompts that get a hint (default: all with --hint). Training data needs prompts "
        "without one too, so that the model does not depend on hints.",
        rich_help_panel=RULES,
    ),
]
Trace = Annotated[bool, typer.Option("--trace", help="Show every episode as it finishes.")]


def run(
    prompts: PromptsOption,
    log: LogOption,
    base_url: BaseUrl = "",
    model: Model = "",
    rules_url: RulesUrl = DEFAULT_RULES_URL,
    system: SystemFile = None,
    samples: Samples = 1,
    concurrency: Concurrency = 8,
    temperature: Temperature = 1.0,
    top_p: TopP = None,
    max_tokens: MaxTokens = 512,
    template_option: TemplateOptions = None,
    decision_bias: DecisionBias = None,
    decision_token: DecisionToken = None,
    max_turns: MaxTurns = 6,
    max_consultations: MaxConsultations = 4,
    max_total_tokens: MaxTotalTokens = None,
    max_seconds: MaxSeconds = 900,
    timeout: Timeout = 300,
    seed: Seed = None,
    provider: Provider = "auto",
    api: ApiChoice = "chat",
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "fail",
    policy_version: PolicyVersion = "base",
    hint: Hinted = False,
    hint_share: HintShare = None,
    mode_share: ModeShares = None,
    call_token: CallToken = None,
    direct_draws: DirectDraws = None,
    history: HistoryChoice = "full",
    new_server: NewServer = False,
    trace: Trace = False,
    as_json: AsJson = False,
) -> None:
    """Sample episodes for many prompts into a log. If interrupted, rerun the same command to resume.

    \f
    Long because it declares one parameter per flag.
    """
    from agent.episode import Limits
    from agent.rollout import DEFAULT_DIRECT_DRAWS, Agent, ProgressView, read_prompts, run_prompts

    limits = Limits(
        turns=max_turns, consultations=max_consultations, tokens=max_total_tokens, seconds=max_seconds
    )
    system_text = read_system(system)
    sampling = sampling_fields(temperature, top_p, max_tokens, template_option, decision_bias, decision_token)
    prompt_list = exit_on_error(lambda: read_prompts(prompts))
    shares = _mode_shares(mode_share, rules_url, call_token, direct_draws)
    share_of_hints = _hint_share(hint, hint_share, rules_url)
    sample = partial(
        run_prompts,
        samples=samples,
        concurrency=concurrency,
        seed=seed,
        history=history,
        new_server=new_server,
    )

    async def session(endpoint: Endpoint, client: RulesClient | None) -> RunSummary:
        agent = Agent(
            endpoint,
            client,
            system=system_text,
            sampling=sampling,
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            policy_version=policy_version,
            call_token=call_token,
            direct_draws=direct_draws or DEFAULT_DIRECT_DRAWS,
            hint_share=share_of_hints,
        )
        with ProgressView(trace=trace) as view:
            return await sample(agent, prompt_list, log, shares=shares, on_progress=view.update)

    _print_summary(
        run_with_services(session, base_url, model, rules_url, timeout, provider, api), log, as_json
    )


def _hint_share(hint: bool, share: float | None, rules_url: str) -> float:
    if (hint or share) and rules_url == "none":
        fail("hints come from the rule service: omit --rules-url none", 2)
    return (1.0 if hint else 0.0) if share is None else share


def _mode_shares(
    texts: list[str] | None, rules_url: str, call_token: int | None, direct_draws: int | None
) -> ModeShare | None:
    from agent.rollout import parse_mode_shares

    shares = exit_on_error(lambda: parse_mode_shares(texts or []))
    if shares and rules_url == "none":
        fail("--mode-share needs a rule service: omit --rules-url none", 2)
    for flag, value in (("--call-token", call_token), ("--direct-draws", direct_draws)):
        if value is not None and not (shares and shares.direct):
            fail(f"{flag} applies to direct samples only: pass --mode-share direct=0.25 too", 2)
    return shares


def _print_summary(summary: RunSummary, log: Path, as_json: bool) -> None:
    from agent.cli.tables import summary_line

    if summary.skipped_lines:
        typer.echo(
            f"ascl-agent: skipped {summary.skipped_lines} lines of {log} that are not episodes", err=True
        )
    typer.echo(json.dumps({**summary.as_dict(), "log": str(log)}) if as_json else summary_line(summary, log))
