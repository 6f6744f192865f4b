"""`ascl-agent`: talk to a model that may consult the rules, sample episodes, look at what was logged."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.episode import Episode, Limits, Message
    from agent.rules_client import RulesClient

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

T = TypeVar("T")

BaseUrl = Annotated[
    str,
    typer.Option(
        help="Where the model's OpenAI-compatible API begins, usually ending in /v1. Its key is read from "
        "OPENAI_API_KEY.",
        envvar="OPENAI_BASE_URL",
    ),
]
Model = Annotated[str, typer.Option(help="Model name, as the endpoint knows it.", envvar="ASCL_MODEL")]
Rules = Annotated[
    str,
    typer.Option(
        help="MCP address of the rule service, or `none`. A token is read from ASCL_RULES_TOKEN.",
        envvar="ASCL_RULES_URL",
    ),
]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature; left out: not sent.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling; left out: not sent.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Most tokens of one reply.")]
MaxTurns = Annotated[int, typer.Option(min=1, help="Most model calls for one prompt.")]
MaxConsultations = Annotated[int, typer.Option(min=0, help="Most consultations for one prompt.")]
MaxTotalTokens = Annotated[
    int | None, typer.Option(min=1, help="Most reply tokens for one prompt; left out: no limit.")
]
MaxSeconds = Annotated[float, typer.Option(min=0.1, help="Most seconds for one prompt.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Most seconds for one request to the endpoint.")]
ToolMode = Annotated[
    Literal["native", "text"],
    typer.Option(help="`text` sends results of <tool_call> text back as a user message."),
]
OnRulesError = Annotated[
    Literal["answer", "refuse", "fail"], typer.Option(help="What to do when the rules cannot be consulted.")
]
PolicyVersion = Annotated[str, typer.Option(help="Your name for the state of the model; recorded.")]
LogArgument = Annotated[Path, typer.Argument(help="An episode log.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
        trace = LiveTrace()
        history: list[Message] = []
        code = 0
        for text in _said(prompt):
            # The rulebook may be edited while people talk: each prompt sees it as it is.
            agent.forget_rules()
            name = f"chat-{uuid.uuid4().hex[:12]}"
            episode = await agent.run(text, prompt_id=name, history=history, stream=True, on_event=trace)
            trace.finish(episode)
            if log:
                with EpisodeLog(log) as record:
                    record.append(episode)
            code = 1 if episode.stop_reason == "error" else 0
            if episode.error and on_rules_error == "fail" and episode.error.boundary == RulesError.boundary:
                break
            history = _continued(episode)
        return code

    raise typer.Exit(_with_services(talk, base_url, model, rules, timeout))


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
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "fail",
    policy_version: PolicyVersion = "base",
    trace: Annotated[bool, typer.Option("--trace", help="Show every episode as it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sample episodes for many prompts into a log. Interrupted, the same command goes on where it stopped."""
    from agent.loop import Agent
    from agent.prompt_file import read_prompts
    from agent.run import RunSummary, run_prompts
    from agent.show import ProgressView, summary_line

    limits = _limits(max_turns, max_consultations, max_total_tokens, max_seconds)
    wanted = _or_exit(lambda: read_prompts(prompts))

    async def sample(endpoint: Endpoint, client: RulesClient | None) -> RunSummary:
        agent = Agent(
            endpoint,
            client,
            sampling=_sampling(temperature, top_p, max_tokens),
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            policy_version=policy_version,
        )
        with ProgressView(trace=trace) as view:
            return await run_prompts(
                agent,
                wanted,
                log,
                samples=samples,
                concurrency=concurrency,
                seed=seed,
                on_progress=view.update,
            )

    done = _with_services(sample, base_url, model, rules, timeout)
    if done.skipped_lines:
        typer.echo(f"ascl-agent: {done.skipped_lines} lines of {log} hold no episode; passed over", err=True)
    typer.echo(json.dumps({**done.as_dict(), "log": str(log)}) if as_json else summary_line(done, log))


@app.command(epilog="Example: ascl-agent show runs/train.jsonl 3f2a")
def show(
    log: LogArgument,
    episode: Annotated[
        str | None, typer.Argument(help="An episode's id or its beginning, or PROMPT_ID#SAMPLE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the episodes of a log, or show one of them in full."""
    from agent.log import read_log
    from agent.show import print_episode, print_table, row, select

    reading = _or_exit(lambda: read_log(log))
    if reading.skipped:
        first = reading.skipped[0]
        typer.echo(
            f"ascl-agent: {len(reading.skipped)} lines of {log} hold no episode (line {first.line}: "
            f"{first.reason})",
            err=True,
        )
    if episode is not None:
        chosen = _or_exit(lambda: select(reading.episodes, episode, log))
        typer.echo(chosen.model_dump_json(indent=2)) if as_json else print_episode(chosen)
    elif as_json:
        typer.echo(json.dumps([row(each) for each in reading.episodes], ensure_ascii=False))
    else:
        print_table(reading.episodes)


@app.command(epilog="Example: ascl-agent validate runs/train.jsonl --json")
def validate(log: LogArgument, as_json: AsJson = False) -> None:
    """Check that every line of a log is an episode and fits together; exit code 1 when something is wrong."""
    from agent.validate import validate_log

    episodes, problems = _or_exit(lambda: validate_log(log))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "log": str(log),
                    "episodes": episodes,
                    "problems": [{"episode_id": p.episode_id, "what": p.what} for p in problems],
                },
                ensure_ascii=False,
            )
        )
    else:
        for problem in problems:
            typer.echo(f"{problem.episode_id or log}: {problem.what}")
        typer.echo(f"{episodes} episodes, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


def _with_services(
    use: Callable[[Endpoint, RulesClient | None], Coroutine[Any, Any, T]],
    base_url: str,
    model: str,
    rules: str,
    timeout: float,
) -> T:
    """Run `use` with the endpoint and the rule service open."""
    from agent.endpoint import Endpoint
    from agent.rules_client import RulesClient

    if not base_url:
        _fail("no endpoint is given: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL", 2)
    if not model:
        _fail("no model is given: pass --model NAME or set ASCL_MODEL", 2)

    async def session() -> T:
        endpoint = Endpoint(base_url, model, api_key=os.environ.get("OPENAI_API_KEY"), timeout=timeout)
        async with endpoint:
            if rules == "none":
                return await use(endpoint, None)
            async with RulesClient(rules, os.environ.get("ASCL_RULES_TOKEN")) as client:
                return await use(endpoint, client)

    try:
        return _or_exit(lambda: asyncio.run(session()))
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept, and the same command goes on from there", 130)


def _or_exit(do: Callable[[], T]) -> T:
    from agent.errors import AgentError

    try:
        return do()
    except AgentError as error:
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"ascl-agent: {sentence}", err=True)
    raise typer.Exit(code)


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
            _fail("the prompt is empty: pass some text", 2)
        yield text
        return
    typer.echo("An empty line or Ctrl-D ends the conversation.", err=True)
    while True:
        try:
            text = input("> ")
        except EOFError:
            return
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


def main() -> None:
    """Entry point of `ascl-agent`."""
    app()


if __name__ == "__main__":
    main()
