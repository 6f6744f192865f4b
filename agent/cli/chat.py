"""TODO: docstring."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import (
    ApiChoice,
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
)

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.episode import Episode, Message
    from agent.tools import RulesClient


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
    from agent.cli.live_trace import LiveTrace
    from agent.episode import EpisodeLog
    from agent.errors import RulesError
    from agent.rollout import Agent

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
