"""Build, serve, query and check a rulebook."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rule_server.cli import authoring, tokens
from rule_server.cli.options import (
    ArtefactDir,
    AsJson,
    Rules,
    Version,
    load_cli_settings,
    notify,
    print_json,
    shorten_types_in_help,
)
from rule_server.cli.terminal import print_table
from rule_server.errors import ConsultError, RuleServiceError, StartError

if TYPE_CHECKING:
    from rule_server.service.rule_service import RuleService
    from rule_server.settings import Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Model = Annotated[
    str | None,
    typer.Option(help="Embedding model: a folder or Hugging Face model ID (default: all-MiniLM-L6-v2)."),
]
TopK = Annotated[
    int | None, typer.Option(help="Rules per response if the request has no `top_k` (default: 3).")
]

Watch = Annotated[
    str | None,
    typer.Option(
        help="Reload when rule files change: true, false, or poll if the file system sends no notifications "
        "(default: true).",
        metavar="true|false|poll",
    ),
]
NoWatch = Annotated[bool, typer.Option("--no-watch", help="Do not reload when rule files change.")]


@app.callback()
def root(version: Version = False) -> None:
    """Reads the options that precede a command."""


@app.command()
def build(rules: Rules = None, artefact: ArtefactDir = None, model: Model = None) -> None:
    """Build the index that `serve` needs. Only changed texts are embedded again.

    Example: ascl-rules build --rules my-rules --artefact index
    """
    settings = load_cli_settings(dir=rules, artefact=artefact, model=model)
    from rule_server.retrieval.build import load_or_build
    from rule_server.rulebook import describe_contents

    index = load_or_build(settings, notify, build=True).index
    book = index.rulebook
    typer.echo(
        f"{book.name} {book.version} {book.digest[:12]}: {describe_contents(book)}, "
        f"{len(index)} texts in {settings.artefact}"
    )


@app.command()
def serve(
    rules: Rules = None,
    artefact: ArtefactDir = None,
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on (default: 8808; 0 picks a free one).")
    ] = None,
    default_top_k: TopK = None,
    watch: Watch = None,
    no_watch: NoWatch = False,
    tokens_file: Annotated[
        Path | None,
        typer.Option(
            help="Require every caller to present a token listed in FILE (default: no tokens).",
            metavar="FILE",
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve other machines without authentication.")
    ] = False,
) -> None:
    """Serve MCP at /mcp and REST at /v1. Builds a missing index and reloads edited rules.

    Example: ascl-rules serve --rules my-rules --port 8808
    """
    settings = load_cli_settings(
        dir=rules,
        artefact=artefact,
        model=model,
        host=host,
        port=port,
        default_top_k=default_top_k,
        watch=False if no_watch else watch,
        tokens_file=tokens_file,
        allow_anonymous=allow_anonymous or None,
    )
    from rule_server.api.app import check_exposure, run

    check_exposure(settings)
    if settings.create_token:
        tokens.create_first(settings.tokens_file)
    notify("loading the rules and the encoder ...")
    run(_create_service(settings))


@app.command()
def stdio(
    rules: Rules = None,
    artefact: ArtefactDir = None,
    model: Model = None,
    default_top_k: TopK = None,
    watch: Watch = None,
    no_watch: NoWatch = False,
) -> None:
    """Serve the MCP tool to one client over standard input and output.

    Example: ascl-rules stdio --rules my-rules
    """
    settings = load_cli_settings(
        dir=rules,
        artefact=artefact,
        model=model,
        default_top_k=default_top_k,
        watch=False if no_watch else watch,
    )
    from rule_server.api.app import version
    from rule_server.api.mcp_server import create_mcp
    from rule_server.cli.stdio import serve_stdio

    service = _create_service(settings)

    async def run() -> bool:
        async with service.running():
            await service.warm()
            return await serve_stdio(create_mcp(service, version()), settings.max_body)

    try:
        interrupted = asyncio.run(run())
    except KeyboardInterrupt:
        interrupted = True
    if interrupted:
        raise SystemExit(130)


@app.command()
def query(
    text: Annotated[
        str | None, typer.Argument(help="The situation: a request, or its sensitive part.", metavar="TEXT")
    ] = None,
    rules: Rules = None,
    artefact: ArtefactDir = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category; repeatable (default: all).")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Maximum number of rules, 1 to 10 (default: 3).")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Treat drafts as active for this query.")] = False,
    expect: Annotated[
        bool,
        typer.Option("--expect", help="Check the cases of expect.yaml: all, or those of this question."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Query the rulebook as a model would, without a server. Then lists the nearest rules not returned.

    With --expect, exits with 1 if a case fails.

    Example: ascl-rules query "a user asks how to kill a stuck Linux process" --json
    """
    if expect:
        if category or top_k is not None:
            raise StartError("--expect asks as a model does: leave out --category and --top-k")
        authoring.expect_command(text, rules, artefact, draft=draft, as_json=as_json)
        return
    if text is None:
        raise StartError("there is no question: write it after `query`, or check expect.yaml with --expect")
    settings = load_cli_settings(dir=rules, artefact=artefact, watch=False)
    from rule_server.authoring.replay import WITHOUT_RECORDS
    from rule_server.cli.query import answer_query
    from rule_server.schemas import parse_request

    arguments = {"situation": text, "categories": category or None, "top_k": top_k}
    try:
        request = parse_request(arguments)
    except ConsultError as error:
        raise StartError(str(error)) from None
    settings = settings.model_copy(update=WITHOUT_RECORDS)
    answer_query(_create_service(settings, make_current=False, drafts=draft), request, as_json=as_json)


@app.command()
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page docs/reference/settings.md.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every setting with its default and meaning.

    Example: ascl-rules settings --json
    """
    from dataclasses import asdict

    from rule_server.cli.settings import setting_rows, settings_reference

    if markdown:
        typer.echo(settings_reference(), nl=False)
    elif as_json:
        print_json([asdict(row) for row in setting_rows()])
    else:
        rows = [(row.variable, row.default, row.meaning) for row in setting_rows()]
        print_table([("variable", "default", "meaning"), *rows], cut=(1, 2))


for _command in (
    authoring.init,
    authoring.new,
    authoring.lint,
    authoring.diff,
    authoring.stats,
    authoring.owners,
    authoring.rollback,
):
    app.command()(_command)
app.add_typer(tokens.app, name="token")


@app.command()
def calibrate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON Lines with `prompt` or `situation`, `kind`, and optionally `source`."),
    ] = None,
    rules: Rules = None,
    artefact: ArtefactDir = None,
    misses: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum share of must-match prompts that match no rule.")
    ] = 0.05,
    find: Annotated[
        list[str] | None,
        typer.Option(help="Prompt kind that must match a rule; repeatable (default: harmful)."),
    ] = None,
    nothing: Annotated[
        list[str] | None,
        typer.Option(help="Prompt kind that must match no rule; repeatable (default: benign_plain, math)."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the curve to this file, .png or .svg (default: no plot).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure without storing the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate the threshold for a rulebook from labelled prompts and store it in the index for `serve`.

    Without files, print the stored threshold. A running service uses a new one after the next rules edit.

    Example: ascl-rules calibrate prompts.jsonl --plot curve.png
    """
    settings = load_cli_settings(dir=rules, artefact=artefact, watch=False)
    from rule_server.cli.calibrate import measure, show

    if files:
        kinds = {"find": find, "nothing": nothing}
        measure(
            settings, notify, files, misses=misses, plot_file=plot, dry_run=dry_run, as_json=as_json, **kinds
        )
    else:
        show(settings, notify, as_json=as_json)


shorten_types_in_help(app)


def _create_service(settings: Settings, *, make_current: bool = True, drafts: bool = False) -> RuleService:
    from rule_server.observability import set_up_logs
    from rule_server.retrieval.build import load_or_build
    from rule_server.service.rule_service import RuleService

    set_up_logs(settings)
    loaded = load_or_build(settings, notify, make_current=make_current, drafts=drafts)
    if drafts:
        from rule_server.retrieval.build import preview_drafts

        loaded = preview_drafts(loaded)
    return RuleService(loaded, settings)


def main() -> None:
    """Runs the command. Exits with 2 for invalid settings or input, with 1 for other service errors."""
    try:
        app()
    except StartError as error:
        typer.echo(f"ascl-rules: {error}", err=True)
        raise SystemExit(2) from None
    except RuleServiceError as error:
        typer.echo(f"ascl-rules: {error}", err=True)
        raise SystemExit(1) from None
