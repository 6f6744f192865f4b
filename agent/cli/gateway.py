"""TODO: docstring."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.cli.options import MaxConsultations, OnRulesError, Rules, fail, or_exit


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
    from agent.gateway import Settings
    from agent.gateway.app import serve
    from agent.tools import RulesClient

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
