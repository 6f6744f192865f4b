"""TODO: docstring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    ApiChoice,
    AsJson,
    BaseUrl,
    MaxConsultations,
    MaxSeconds,
    MaxTokens,
    MaxTotalTokens,
    MaxTurns,
    Model,
    OnRulesError,
    PolicyVersion,
    Provider,
    Rules,
    Temperature,
    Timeout,
    ToolMode,
    TopP,
    _limits,
    _sampling,
    _with_services,
    fail,
    or_exit,
)

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.tools import RulesClient


def run(
    prompts: Annotated[Path, typer.Option(help='JSON Lines with "id", "prompt" and perhaps "kind".')],
    log: Annotated[Path, typer.Option(help="Episodes are appended here; the same command continues it.")],
    base_url: BaseUrl = "",
    model: Model = "",
    rules: Rules = "http://127.0.0.1:8808/mcp",
    samples: Annotated[int, typer.Option(min=1, help="Episodes for each prompt.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Most episodes at once.")] = 8,
    temperature: Temperature = 1.0,
    top_p: TopP = None,
    max_tokens: MaxTokens = 512,
    max_turns: MaxTurns = 6,
    max_consultations: MaxConsultations = 4,
    max_total_tokens: MaxTotalTokens = None,
    max_seconds: MaxSeconds = 900,
    timeout: Timeout = 300,
    seed: Annotated[int | None, typer.Option(help="Sample k is sent seed + k; left out: none is.")] = None,
    provider: Provider = "auto",
    api: ApiChoice = "chat",
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "fail",
    policy_version: PolicyVersion = "base",
    mode_share: Annotated[
        list[str] | None,
        typer.Option(
            help="Share of each group that is brought into a mode: consult=0.25, direct=0.25, or both."
        ),
    ] = None,
    call_token: Annotated[
        int | None,
        typer.Option(help="Id of the token that opens a call; biased against in direct samples."),
    ] = None,
    direct_draws: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Replies drawn for a direct sample at the most, while they consult (8)."
        ),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show every episode as it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sample episodes for many prompts into a log. Interrupted, the same command goes on where it stopped."""
    from agent.cli.tables import summary_line
    from agent.rollout import (
        DEFAULT_DIRECT_DRAWS,
        Agent,
        ProgressView,
        RunSummary,
        parse_mode_shares,
        read_prompts,
        run_prompts,
    )

    limits = _limits(max_turns, max_consultations, max_total_tokens, max_seconds)
    wanted = or_exit(lambda: read_prompts(prompts))
    shares = or_exit(lambda: parse_mode_shares(mode_share or []))
    if shares and rules == "none":
        fail("--mode-share needs a rule service: leave out --rules none", 2)
    if call_token is not None and not (shares and shares.direct):
        fail("--call-token is of use for direct samples alone: pass --mode-share direct=0.25 too", 2)
    if direct_draws is not None and not (shares and shares.direct):
        fail("--direct-draws is of use for direct samples alone: pass --mode-share direct=0.25 too", 2)

    async def sample(endpoint: Endpoint, client: RulesClient | None) -> RunSummary:
        agent = Agent(
            endpoint,
            client,
            sampling=_sampling(temperature, top_p, max_tokens),
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            policy_version=policy_version,
            call_token=call_token,
            direct_draws=direct_draws or DEFAULT_DIRECT_DRAWS,
        )
        with ProgressView(trace=trace) as view:
            return await run_prompts(
                agent,
                wanted,
                log,
                samples=samples,
                concurrency=concurrency,
                seed=seed,
                shares=shares,
                on_progress=view.update,
            )

    done = _with_services(sample, base_url, model, rules, timeout, provider, api)
    if done.skipped_lines:
        typer.echo(f"ascl-agent: {done.skipped_lines} lines of {log} hold no episode; passed over", err=True)
    typer.echo(json.dumps({**done.as_dict(), "log": str(log)}) if as_json else summary_line(done, log))
