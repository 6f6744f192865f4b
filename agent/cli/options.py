"""Options that several commands share, and how a command ends when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import typer

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
