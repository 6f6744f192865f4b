"""`ascl-agent chat`: one prompt, or a conversation."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    DEFAULT_RULES_URL,
    ApiChoice,
    BaseUrl,
    DecisionBias,
    DecisionToken,
    Hinted,
    MaxConsultations,
    MaxSeconds,
    MaxTokens,
    MaxTotalTokens,
    MaxTurns,
    Model,
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
    fail,
    read_system,
    run_with_services,
    sampling_fields,
)

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.rollout import Agent
    from agent.tools import RulesClient

PromptArgument = Annotated[
    str | None,
    typer.Argument(
        help="Prompt. If omitted, reads standard input, or starts an interactive conversation on a terminal."
    ),
]
LogOption = Annotated[Path | None, typer.Option(help="Append the episodes to this log (default: no log).")]


def chat(
    prompt: PromptArgument = None,
    base_url: BaseUrl = "",
    model: Model = "",
    rules_url: RulesUrl = DEFAULT_RULES_URL,
    system: SystemFile = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = 1024,
    template_option: TemplateOptions = None,
    decision_bias: DecisionBias = None,
    decision_token: DecisionToken = None,
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
    hint: Hinted = False,
    log: LogOption = None,
) -> None:
    """Chat with the model. Answers go to standard output, reasoning and consultations to standard error."""
    from agent.episode import Limits
    from agent.rollout import Agent

    limits = Limits(
        turns=max_turns, consultations=max_consultations, tokens=max_total_tokens, seconds=max_seconds
    )
    system_text = read_system(system)
    sampling = sampling_fields(temperature, top_p, max_tokens, template_option, decision_bias, decision_token)

    async def session(endpoint: Endpoint, client: RulesClient | None) -> int:
        agent = Agent(
            endpoint,
            client,
            system=system_text,
            sampling=sampling,
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            policy_version=policy_version,
            hint_share=float(hint and client is not None),
        )
        return await _talk(agent, prompt, log)

    raise typer.Exit(run_with_services(session, base_url, model, rules_url, timeout, provider, api))


async def _talk(agent: Agent, prompt: str | None, log: Path | None) -> int:
    """Answers the user's prompts; returns the exit code: 1 if the last one failed."""
    from agent.cli.live_trace import LiveTrace
    from agent.errors import RulesError
    from agent.rollout import Conversation

    context = agent.context
    # A limit on total tokens needs token counts, which a streamed reply may lack.
    stream = context.limits.tokens is None or context.endpoint.quirks.stream_usage == "yes"
    trace = LiveTrace()
    conversation = Conversation(agent, log, stream=stream, on_event=trace)
    code = 0
    for text in _read_prompts(prompt):
        episode = await conversation.ask(text)
        trace.finish(episode)
        code = 1 if episode.stop_reason == "error" else 0
        rules_failed = episode.error is not None and episode.error.boundary == RulesError.boundary
        if rules_failed and context.on_rules_error == "fail":
            break
    return code


def _read_prompts(prompt: str | None) -> Iterator[str]:
    """Yields the argument, or all of a piped standard input, or one prompt per line typed on a terminal."""
    if prompt is not None or not sys.stdin.isatty():
        text = prompt if prompt is not None else sys.stdin.read()
        if not text.strip():
            fail("the prompt is empty: pass some text", 2)
        yield text
        return
    typer.echo("An empty line, Ctrl-D or Ctrl-C ends the conversation.", err=True)
    while True:
        # With asyncio's handler, the first Ctrl-C would only take effect after the next line.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            text = input("> ")
        except EOFError:
            return
        finally:
            signal.signal(signal.SIGINT, handler)
        if not text.strip():
            return
        yield text
