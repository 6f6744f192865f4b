"""Options that several commands share, opening of the services, and exit on errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from agent.endpoint import Endpoint, Quirks
    from agent.episode import Api
    from agent.tools import RulesClient

T = TypeVar("T")

DEFAULT_RULES_URL = "http://127.0.0.1:8808/mcp"

BaseUrl = Annotated[
    str,
    typer.Option(
        help="Base URL of the model's OpenAI-compatible API, usually ending in /v1. The API key is read from "
        "OPENAI_API_KEY.",
        envvar="OPENAI_BASE_URL",
    ),
]
Model = Annotated[str, typer.Option(help="Model name at the endpoint.", envvar="ASCL_MODEL")]
Rules = Annotated[
    str,
    typer.Option(
        help="MCP URL of the rule service, or `none`. The token is read from ASCL_RULES_TOKEN.",
        envvar="ASCL_RULES_URL",
    ),
]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature; not sent by default.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling; not sent by default.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens of one reply.")]
MaxTurns = Annotated[int, typer.Option(min=1, help="Maximum model calls for one prompt.")]
MaxConsultations = Annotated[int, typer.Option(min=0, help="Maximum consultations for one prompt.")]
MaxTotalTokens = Annotated[
    int | None, typer.Option(min=1, help="Maximum reply tokens for one prompt; no limit by default.")
]
MaxSeconds = Annotated[float, typer.Option(min=0.1, help="Maximum seconds for one prompt.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Maximum seconds for one request to the endpoint.")]
ToolMode = Annotated[
    Literal["native", "text"],
    typer.Option(help="`text` sends results of <tool_call> text as a user message."),
]
OnRulesError = Annotated[
    Literal["answer", "refuse", "fail"], typer.Option(help="Action if the rules cannot be consulted.")
]
PolicyVersion = Annotated[str, typer.Option(help="Your name for the version of the model; recorded.")]
Provider = Annotated[
    str,
    typer.Option(
        help="Provider whose behaviour to assume, a name of `ascl-agent quirks`; `auto` derives it from the "
        "URL."
    ),
]
ApiChoice = Annotated[
    Literal["chat", "responses"],
    typer.Option("--api", help="API to use: Chat Completions, or OpenAI's Responses."),
]
LogArgument = Annotated[Path, typer.Argument(help="An episode log.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def or_exit(action: Callable[[], T]) -> T:
    """Returns the result of `action`; ends the command with code 1 on an error that the user can fix."""
    from agent.errors import AgentError

    try:
        return action()
    except AgentError as error:
        fail(str(error), 1)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"cannot use {error.filename}: {error.strerror}", 1)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message on standard error."""
    typer.echo(f"ascl-agent: {message}", err=True)
    raise typer.Exit(code)


def sampling_fields(temperature: float | None, top_p: float | None, max_tokens: int) -> dict[str, Any]:
    """Returns the sampling fields of every request."""
    fields = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    return {name: value for name, value in fields.items() if value is not None}


def run_with_services(
    session: Callable[[Endpoint, RulesClient | None], Coroutine[Any, Any, T]],
    base_url: str,
    model: str,
    rules: str,
    timeout: float,
    provider: str,
    api: Api,
) -> T:
    """Runs `session` with an open endpoint and an open client of the rule service (None for `none`)."""
    from agent.endpoint import Endpoint
    from agent.tools import RulesClient

    if not base_url:
        fail("missing endpoint: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL", 2)
    if not model:
        fail("missing model: pass --model NAME or set ASCL_MODEL", 2)
    quirks = _quirks(provider)

    async def with_services() -> T:
        key = os.environ.get("OPENAI_API_KEY")
        endpoint = Endpoint(base_url, model, api_key=key, timeout=timeout, quirks=quirks, api=api)
        async with endpoint:
            if rules == "none":
                return await session(endpoint, None)
            async with RulesClient(rules, os.environ.get("ASCL_RULES_TOKEN")) as client:
                return await session(endpoint, client)

    try:
        return or_exit(lambda: asyncio.run(with_services()))
    except KeyboardInterrupt:
        fail("interrupted; finished work is saved, and the same command resumes from there", 130)


def _quirks(provider: str) -> Quirks | None:
    from agent.endpoint import PROFILES, quirks_named

    quirks = quirks_named(provider)
    if quirks is None and provider != "auto":
        names = ", ".join(row.name for row in PROFILES)
        fail(f"unknown provider {provider!r}: pass auto, or one of {names}", 2)
    return quirks
