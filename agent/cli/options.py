"""Shared options of the commands, connection to the services, and exit on errors."""

from __future__ import annotations

import asyncio
import json
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
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature; not sent if unset.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling; not sent if unset.")]
TemplateOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        help="KEY=VALUE for the server's chat template (`chat_template_kwargs`), such as "
        "enable_thinking=false; VALUE is JSON or text. Repeatable, and stored with each episode.",
    ),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens per reply.")]
MaxTurns = Annotated[int, typer.Option(min=1, help="Maximum model calls per prompt.")]
MaxConsultations = Annotated[int, typer.Option(min=0, help="Maximum consultations per prompt.")]
MaxTotalTokens = Annotated[
    int | None, typer.Option(min=1, help="Maximum reply tokens per prompt (default: no limit).")
]
MaxSeconds = Annotated[float, typer.Option(min=0.1, help="Maximum seconds per prompt.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Maximum seconds per request to the endpoint.")]
ToolMode = Annotated[
    Literal["native", "text"],
    typer.Option(
        help="How tool results are sent: `native` as tool messages; `text` as user messages, for models that "
        "write <tool_call> as text."
    ),
]
OnRulesError = Annotated[
    Literal["answer", "refuse", "fail"], typer.Option(help="What to do if the rules cannot be consulted.")
]
Hinted = Annotated[
    bool,
    typer.Option(
        "--hint",
        help="End the system text with a line about the rules near the prompt, from the rule service. The "
        "model still decides.",
    ),
]
PolicyVersion = Annotated[str, typer.Option(help="Label for the model version, stored with each episode.")]
Provider = Annotated[
    str,
    typer.Option(
        help="Provider whose behaviour to assume, as listed by `ascl-agent quirks`; `auto` derives it from "
        "the URL."
    ),
]
ApiChoice = Annotated[
    Literal["chat", "responses"],
    typer.Option("--api", help="API to use: Chat Completions, or OpenAI's Responses."),
]
NewServer = Annotated[
    bool,
    typer.Option(
        "--new-server",
        help="The endpoint's server was just started and has answered nothing yet. `transformers serve "
        "--continuous-batching` keeps the sampling of its first request.",
    ),
]
HistoryChoice = Annotated[
    Literal["full", "last"],
    typer.Option(
        "--history",
        help="What the model receives of a conversation: `full`, or the `last` user turn alone, to measure "
        "what the earlier messages change.",
    ),
]
LogArgument = Annotated[Path, typer.Argument(help="Episode log.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_version(wanted: bool) -> None:
    """Prints the version of ASCL and exits, if wanted."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ascl {version('ascl')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version),
]


def exit_on_error(action: Callable[[], T]) -> T:
    """Returns the result of `action`; exits with code 1 on an error that the user can fix."""
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
    """Prints a message to standard error and exits with `code`."""
    typer.echo(f"ascl-agent: {message}", err=True)
    raise typer.Exit(code)


def sampling_fields(
    temperature: float | None,
    top_p: float | None,
    max_tokens: int,
    template_options: list[str] | None = None,
) -> dict[str, Any]:
    """Returns the sampling fields of every request; exits with code 2 if a template option is malformed."""
    fields = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "chat_template_kwargs": parse_template_options(template_options) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def parse_template_options(options: list[str] | None) -> dict[str, Any]:
    """Parses KEY=VALUE pairs; a VALUE that is not JSON is text. Exits with code 2 if one has no key."""
    parsed: dict[str, Any] = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not key or not equals:
            fail(f"--template-option {option}: expected KEY=VALUE, such as enable_thinking=false", 2)
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


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
        return exit_on_error(lambda: asyncio.run(with_services()))
    except KeyboardInterrupt:
        fail("interrupted; finished work is saved: rerun the same command to resume", 130)


def _quirks(provider: str) -> Quirks | None:
    from agent.endpoint import PROFILES, quirks_named

    quirks = quirks_named(provider)
    if quirks is None and provider != "auto":
        names = ", ".join(row.name for row in PROFILES)
        fail(f"unknown provider {provider!r}: pass auto, or one of {names}", 2)
    return quirks
