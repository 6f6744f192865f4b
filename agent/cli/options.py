"""Shared options of the commands, connection to the services, and exit on errors."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from agent.endpoint import Endpoint, Quirks
    from agent.episode import Api
    from agent.tools import RulesClient

T = TypeVar("T")

DEFAULT_RULES_URL = "http://127.0.0.1:8808/mcp"

# Titles of the groups of options in --help.
ENDPOINT, RULES, SAMPLING, LIMITS = "The model's endpoint", "Rules", "Sampling", "Limits per prompt"
FORCED, REPLIES, LISTENING, LOG = "Forced modes", "Replies to the application", "Listening", "Log"

BaseUrl = Annotated[
    str,
    typer.Option(
        help="Base URL of the model's OpenAI-compatible API, usually ending in /v1. The API key is read from "
        "OPENAI_API_KEY.",
        envvar="OPENAI_BASE_URL",
        rich_help_panel=ENDPOINT,
    ),
]
Model = Annotated[
    str, typer.Option(help="Model name at the endpoint.", envvar="ASCL_MODEL", rich_help_panel=ENDPOINT)
]
RulesUrl = Annotated[
    str,
    typer.Option(
        "--rules-url",
        help="MCP URL of the rule service, or `none`. The token is read from ASCL_RULES_TOKEN.",
        envvar="ASCL_RULES_URL",
        rich_help_panel=RULES,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, help="Sampling temperature; not sent if unset.", rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Nucleus sampling; not sent if unset.", rich_help_panel=SAMPLING),
]
TemplateOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        help="KEY=VALUE for the server's chat template (`chat_template_kwargs`), such as "
        "enable_thinking=false; VALUE is JSON or text. Stored with each episode; repeatable "
        "(default: none).",
        rich_help_panel=SAMPLING,
    ),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens per reply.", rich_help_panel=SAMPLING)]
MaxTurns = Annotated[int, typer.Option(min=1, help="Maximum model calls per prompt.", rich_help_panel=LIMITS)]
MaxConsultations = Annotated[
    int, typer.Option(min=0, help="Maximum consultations per prompt.", rich_help_panel=RULES)
]
MaxTotalTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum reply tokens per prompt (default: no limit).", rich_help_panel=LIMITS),
]
MaxSeconds = Annotated[
    float, typer.Option(min=0.1, help="Maximum seconds per prompt.", rich_help_panel=LIMITS)
]
Timeout = Annotated[
    float,
    typer.Option(min=0.1, help="Maximum seconds per request to the endpoint.", rich_help_panel=ENDPOINT),
]
ToolMode = Annotated[
    Literal["native", "text"],
    typer.Option(
        help="How tool results are sent: `native` as tool messages; `text` as user messages, for models that "
        "write <tool_call> as text.",
        rich_help_panel=RULES,
    ),
]
OnRulesError = Annotated[
    Literal["answer", "refuse", "fail"],
    typer.Option(help="What to do if the rules cannot be consulted.", rich_help_panel=RULES),
]
Hinted = Annotated[
    bool,
    typer.Option(
        "--hint",
        help="End the system text with a line about the rules near the prompt, from the rule service. The "
        "model still decides.",
        rich_help_panel=RULES,
    ),
]
DecisionBias = Annotated[
    float | None,
    typer.Option(
        min=-100,
        max=100,
        help="Offset on the logit of the token that opens a call, from `ascl-train decision` (default: "
        "none).",
        rich_help_panel=SAMPLING,
    ),
]
DecisionToken = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="ID of that token, from `ascl-train decision` (default: none).",
        rich_help_panel=SAMPLING,
    ),
]
PolicyVersion = Annotated[str, typer.Option(help="Label for the model version, stored with each episode.")]
Provider = Annotated[
    str,
    typer.Option(
        help="Provider whose behaviour to assume, as listed by `ascl-agent quirks`; `auto` derives it from "
        "the URL.",
        rich_help_panel=ENDPOINT,
    ),
]
ApiChoice = Annotated[
    Literal["chat", "responses"],
    typer.Option(
        "--api", help="API to use: Chat Completions, or OpenAI's Responses.", rich_help_panel=ENDPOINT
    ),
]
NewServer = Annotated[
    bool,
    typer.Option(
        "--new-server",
        help="The endpoint's server was just started and has answered nothing yet. `transformers serve "
        "--continuous-batching` keeps the sampling of its first request.",
        rich_help_panel=ENDPOINT,
    ),
]
HistoryChoice = Annotated[
    Literal["full", "last"],
    typer.Option(
        "--history",
        help="What the model receives of a conversation: `full`, or the `last` user turn alone, to measure "
        "what the earlier messages change.",
        rich_help_panel=SAMPLING,
    ),
]
SystemFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the system text (default: the built-in one). Its digest is stored with each episode.",
        rich_help_panel=RULES,
    ),
]
MAX_SYSTEM_BYTES = 256 * 1024
LogArgument = Annotated[Path, typer.Argument(help="Episode log.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_version(wanted: bool) -> None:
    """Prints the version of ASCL and exits if `--version` was given."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ascl {version('ascl')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version),
]


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for parameter in self.params for name in parameter.opts}
        if "--rules-url" in names and "--rules" not in names:
            args = [re.sub("^--rules(?=$|=)", "--rules-url", word) for word in args]  # the name before 0.2
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_short_types(super().get_params(ctx), ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # Lines of a paragraph are joined, because a terminal breaks them at other places.
        self.help = re.sub(r"(?<=\S)\n(?=\S)", " ", self.help or "")
        super().format_help(ctx, formatter)


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _with_short_types(super().get_params(ctx), ctx)


def _with_short_types(parameters: list[Any], ctx: Any) -> list[Any]:
    for parameter in parameters:
        if parameter.metavar is None and parameter.param_type_name == "option":
            # An on/off option takes no value; a range is printed beside the type anyway.
            kind = re.sub(r"list\[(.*)\]| range", r"\1", parameter.display_type(ctx))
            parameter.metavar = "" if parameter.is_flag else kind
    return parameters


def shorten_types_in_help(app: typer.Typer) -> None:
    """Shortens the option types in --help: none for on/off options, a short name for numbers."""
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            shorten_types_in_help(group.typer_instance)


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
    decision_bias: float | None = None,
    decision_token: int | None = None,
) -> dict[str, Any]:
    """Returns the sampling fields of every request; exits with code 2 if an option is malformed."""
    fields = {
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "chat_template_kwargs": parse_template_options(template_options) or None,
        "logit_bias": logit_bias(decision_bias, decision_token),
    }
    return {name: value for name, value in fields.items() if value is not None}


def logit_bias(decision_bias: float | None, decision_token: int | None) -> dict[str, float] | None:
    """Returns the offset by token ID, or None; exits with code 2 if only one of the two options is given."""
    if (decision_bias is None) != (decision_token is None):
        fail("--decision-bias and --decision-token need each other: `ascl-train decision` prints both", 2)
    if decision_bias is None or decision_token is None:
        return None
    return {str(decision_token): decision_bias}


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


def read_system(file: Path | None) -> str | None:
    """Returns the text of the --system file, or None; exits with code 2 if the file cannot be used."""
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SYSTEM_BYTES + 1)
        text = content.decode()
    except OSError as error:
        fail(f"--system {file} cannot be read: {error.strerror}", 2)
    except UnicodeDecodeError:
        fail(f"--system {file} is not UTF-8 text: save it as UTF-8", 2)
    if len(content) > MAX_SYSTEM_BYTES:
        fail(f"--system {file} is larger than {MAX_SYSTEM_BYTES // 1024} KiB: shorten it", 2)
    if not text.strip():
        fail(f"--system {file} is empty: write the system text into it, or leave --system out", 2)
    return text


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
