"""Options that several commands share, and how a command ends when something is wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from agent.endpoint import Endpoint
    from agent.episode import Api, Limits
    from agent.tools import RulesClient

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
Provider = Annotated[
    str,
    typer.Option(
        help="Whose habits the endpoint has, by a name of `ascl-agent quirks`; `auto` goes by the address."
    ),
]
ApiChoice = Annotated[
    Literal["chat", "responses"],
    typer.Option("--api", help="The API to speak: Chat Completions, or OpenAI's Responses."),
]
LogArgument = Annotated[Path, typer.Argument(help="An episode log.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def or_exit(do: Callable[[], T]) -> T:
    """What `do` returns; a fault that a user can mend ends the command with its sentence and code 1."""
    from agent.errors import AgentError

    try:
        return do()
    except AgentError as error:
        fail(str(error), 1)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"cannot use {error.filename}: {error.strerror}", 1)


def fail(sentence: str, code: int) -> NoReturn:
    """End the command with one sentence on standard error."""
    typer.echo(f"ascl-agent: {sentence}", err=True)
    raise typer.Exit(code)


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
    from agent.endpoint import PROFILES, Endpoint, quirks_named
    from agent.tools import RulesClient

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
