"""`ascl-agent`: talk to a model that may consult the rules, sample episodes, look at what was logged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from agent.log_cli import register
from agent.options import (
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
    fail,
    or_exit,
)

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.episode import Api, Episode, Limits, Message
    from agent.quirks import Quirks
    from agent.rules_client import RulesClient

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command(
    epilog='Example: ascl-agent chat "How do I sharpen a kitchen knife?" --base-url URL --model NAME'
)
def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="One prompt; left out: a conversation, or standard input.")
    ] = None,
    base_url: BaseUrl = "",
    model: Model = "",
    rules: Rules = "http://127.0.0.1:8808/mcp",
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = 1024,
    max_turns: MaxTurns = 6,
    max_consultations: MaxConsultations = 4,
    max_total_tokens: MaxTotalTokens = None,
    max_seconds: MaxSeconds = 900,
    timeout: Timeout = 300,
    provider: Provider = "auto",
    api: ApiChoice = "chat",
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "answer",
    policy_version: PolicyVersion = "base",
    log: Annotated[Path | None, typer.Option(help="Append the episodes to this log.")] = None,
) -> None:
    """Talk to the model. The answer goes to standard output, thoughts and consultations to standard error."""
    from agent.errors import RulesError
    from agent.log import EpisodeLog
    from agent.loop import Agent
    from agent.trace import LiveTrace

    limits = _limits(max_turns, max_consultations, max_total_tokens, max_seconds)

    async def talk(endpoint: Endpoint, client: RulesClient | None) -> int:
        agent = Agent(
            endpoint,
            client,
            sampling=_sampling(temperature, top_p, max_tokens),
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            policy_version=policy_version,
        )
        # Where streamed replies may come without token counts, a limit on them holds for whole replies only.
        counted = max_total_tokens is None or endpoint.quirks.stream_usage == "yes"
        trace = LiveTrace()
        history: list[Message] = []
        code = 0
        for text in _said(prompt):
            # The rulebook may be edited while people talk: each prompt sees it as it is.
            agent.forget_rules()
            name = f"chat-{uuid.uuid4().hex[:12]}"
            episode = await agent.run(text, prompt_id=name, history=history, stream=counted, on_event=trace)
            trace.finish(episode)
            if log:
                with EpisodeLog(log) as record:
                    record.append(episode)
            code = 1 if episode.stop_reason == "error" else 0
            if episode.error and on_rules_error == "fail" and episode.error.boundary == RulesError.boundary:
                break
            history = _continued(episode)
        return code

    raise typer.Exit(_with_services(talk, base_url, model, rules, timeout, provider, api))


@app.command(
    epilog="Example: ascl-agent run --prompts prompts.jsonl --samples 8 --log runs/train.jsonl "
    "--base-url http://127.0.0.1:8810/v1 --model NAME"
)
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
    from agent.loop import Agent
    from agent.prompt_file import read_prompts
    from agent.run import RunSummary, run_prompts
    from agent.show import ProgressView, summary_line
    from agent.stratify import DRAWS, read_shares

    limits = _limits(max_turns, max_consultations, max_total_tokens, max_seconds)
    wanted = or_exit(lambda: read_prompts(prompts))
    shares = or_exit(lambda: read_shares(mode_share or []))
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
            direct_draws=direct_draws or DRAWS,
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


@app.command(epilog="Example: ascl-agent probe http://127.0.0.1:8000/v1 --json")
def probe(
    url: Annotated[str, typer.Argument(help="Base URL of the endpoint, with /v1.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Model name; left out: the first listed.")] = None,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Find out an endpoint's habits with a dozen small requests, and print them as a row of `quirks`."""
    from agent.probe import STEPS
    from agent.probe import probe as find_out
    from agent.show import StepView, print_quirks

    key = os.environ.get("OPENAI_API_KEY")
    with StepView(STEPS) as view:
        found = or_exit(
            lambda: asyncio.run(find_out(url, model, api_key=key, timeout=timeout, on_step=view.step))
        )
    if as_json:
        typer.echo(json.dumps({"model": found.model, **row_of(found.row), "notes": found.notes}))
        return
    print_quirks([found.row])
    for note in found.notes:
        typer.echo(f"note: {note}")


@app.command(epilog="Example: ascl-agent quirks --json")
def quirks(as_json: AsJson = False) -> None:
    """Print what is known of providers: names for --provider, and where they differ."""
    from agent.quirks import PROFILES
    from agent.show import print_quirks

    if as_json:
        typer.echo(json.dumps([row_of(row) for row in PROFILES]))
    else:
        print_quirks(PROFILES)


@app.command(
    epilog="Example: ascl-agent gateway --upstream http://127.0.0.1:8000/v1 --port 8809; then give your "
    "application the base URL http://127.0.0.1:8809/v1"
)
def gateway(
    upstream: Annotated[str, typer.Option(help="Base URL of the model's OpenAI-compatible API, with /v1.")],
    rules: Rules = "http://127.0.0.1:8808/mcp",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8809,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines ask. Callers are not checked.")
    ] = False,
    on_rules_error: OnRulesError = "answer",
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep text back until it is known that the turn consults nothing.")
    ] = False,
    max_consultations: MaxConsultations = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest silence of the upstream, seconds.")] = 600,
    keepalive: Annotated[
        float, typer.Option(min=0.1, help="Longest silence towards a streaming caller, seconds.")
    ] = 10,
    coalesce: Annotated[
        Literal["marked", "equal", "off"],
        typer.Option(
            help="Which requests go on from an earlier try that failed: those that say they are sent again, "
            "any equal one, none."
        ),
    ] = "marked",
    coalesce_window: Annotated[
        float, typer.Option(min=0, help="How long what a failed try found out is kept, seconds.")
    ] = 120,
    body_limit: Annotated[int, typer.Option(min=1024, help="Largest request, bytes.")] = 32 * 1024 * 1024,
    log: Annotated[Path | None, typer.Option(help="Append every conversation to this episode log.")] = None,
    log_keep_days: Annotated[
        int | None,
        typer.Option(min=1, help="Write a log a day (log.2026-11-28.jsonl), and remove those of before."),
    ] = None,
) -> None:
    """Stand between an application and its model's API, so that the model may consult the rules.

    Nothing else changes for the application. Its key goes to the upstream and is kept nowhere.
    """
    from agent.gateway.serve import serve
    from agent.gateway.settings import Settings
    from agent.rules_client import RulesClient

    if rules == "none":
        fail("a gateway without rules would only pass requests on: give the address of a rule service", 2)

    if log_keep_days and log is None:
        fail("--log-keep-days is of use for a log alone: pass --log FILE too", 2)

    def run() -> None:
        settings = Settings(
            upstream,
            on_rules_error=on_rules_error,
            hold=hold,
            log=log,
            log_keep_days=log_keep_days,
            most_consultations=max_consultations,
            body_limit=body_limit,
            timeout=timeout,
            keepalive=keepalive,
            coalesce=coalesce,
            coalesce_window=coalesce_window,
            allow_remote=allow_remote,
        )
        client = RulesClient(rules, os.environ.get("ASCL_RULES_TOKEN"))

        def ready(address: str) -> None:
            typer.echo(
                f"ascl-agent: {address} passes on to {settings.public_upstream}, "
                f"rules from {client.public_url}",
                err=True,
            )

        serve(settings, client, host, port, ready)

    or_exit(run)


def row_of(row: Quirks) -> dict[str, str]:
    """A row of the quirks table for JSON output."""
    from agent.quirks import columns

    return {column: getattr(row, column) for column in columns()}


def _with_services(
    use: Callable[[Endpoint, RulesClient | None], Coroutine[Any, Any, T]],
    base_url: str,
    model: str,
    rules: str,
    timeout: float,
    provider: str,
    api: Api,
) -> T:
    """Run `use` with the endpoint and the rule service open."""
    from agent.endpoint import Endpoint
    from agent.quirks import PROFILES, quirks_named
    from agent.rules_client import RulesClient

    if not base_url:
        fail("no endpoint is given: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL", 2)
    if not model:
        fail("no model is given: pass --model NAME or set ASCL_MODEL", 2)

    quirks = quirks_named(provider)
    if quirks is None and provider != "auto":
        names = ", ".join(row.name for row in PROFILES)
        fail(f"the provider {provider!r} is not known: pass auto, or one of {names}", 2)

    async def session() -> T:
        key = os.environ.get("OPENAI_API_KEY")
        endpoint = Endpoint(base_url, model, api_key=key, timeout=timeout, quirks=quirks, api=api)
        async with endpoint:
            if rules == "none":
                return await use(endpoint, None)
            async with RulesClient(rules, os.environ.get("ASCL_RULES_TOKEN")) as client:
                return await use(endpoint, client)

    try:
        return or_exit(lambda: asyncio.run(session()))
    except KeyboardInterrupt:
        fail("interrupted; what was finished is kept, and the same command goes on from there", 130)


def _limits(turns: int, consultations: int, tokens: int | None, seconds: float) -> Limits:
    from agent.episode import Limits

    return Limits(turns=turns, consultations=consultations, tokens=tokens, seconds=seconds)


def _sampling(temperature: float | None, top_p: float | None, max_tokens: int) -> dict[str, Any]:
    chosen = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    return {name: value for name, value in chosen.items() if value is not None}


def _said(prompt: str | None) -> Iterator[str]:
    """The user's prompts: the one given, all of standard input when it is piped, or line by line."""
    if prompt is not None or not sys.stdin.isatty():
        text = prompt if prompt is not None else sys.stdin.read()
        if not text.strip():
            fail("the prompt is empty: pass some text", 2)
        yield text
        return
    typer.echo("An empty line, Ctrl-D or Ctrl-C ends the conversation.", err=True)
    while True:
        # Left to asyncio, the first Ctrl-C would be noted and a line still be waited for.
        noted = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            text = input("> ")
        except EOFError:
            return
        finally:
            signal.signal(signal.SIGINT, noted)
        if not text.strip():
            return
        yield text


def _continued(episode: Episode) -> list[Message]:
    """The conversation so far, for the next prompt; a prompt that got no answer is left out."""
    start = 1 if episode.messages and episode.messages[0].get("role") == "system" else 0
    if episode.answer is not None:
        return episode.messages[start:]
    users = [i for i, m in enumerate(episode.messages) if m.get("content") == episode.prompt]
    return episode.messages[start : users[-1]]


register(app)


def main() -> None:
    """Entry point of `ascl-agent`."""
    app()


if __name__ == "__main__":
    main()
