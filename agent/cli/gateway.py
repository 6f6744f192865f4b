"""`ascl-agent gateway`: a proxy between an application and its model's API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.cli.options import (
    DEFAULT_RULES_URL,
    LISTENING,
    LOG,
    REPLIES,
    RULES,
    DecisionBias,
    DecisionToken,
    MaxConsultations,
    OnRulesError,
    exit_on_error,
    fail,
    logit_bias,
)

UpstreamOption = Annotated[
    str, typer.Option(help="Base URL of the model's OpenAI-compatible API, usually ending in /v1.")
]
Port = Annotated[
    int,
    typer.Option(
        min=0, max=65535, help="Port to listen on; 0 selects a free one.", rich_help_panel=LISTENING
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=LISTENING)]
AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote",
        help="Accept connections from other machines, without authentication.",
        rich_help_panel=LISTENING,
    ),
]
Hold = Annotated[
    bool,
    typer.Option(
        "--hold",
        help="Withhold streamed text until the turn is known not to call the rule tool.",
        rich_help_panel=REPLIES,
    ),
]
GatewayHint = Annotated[
    bool,
    typer.Option(
        "--hint",
        help="End the system text with a line about the rules near the user's last message, from the rule "
        "service. The model still decides, and the application never sees the line.",
        rich_help_panel=RULES,
    ),
]
UpstreamTimeout = Annotated[
    float, typer.Option(min=0.1, help="Maximum seconds without data from the upstream.")
]
Keepalive = Annotated[
    float,
    typer.Option(
        min=0.1,
        help="Send a keep-alive to streaming callers after this many idle seconds.",
        rich_help_panel=REPLIES,
    ),
]
Coalesce = Annotated[
    Literal["marked", "equal", "off"],
    typer.Option(
        help="Which repeated requests may resume a failed attempt: `marked` (Idempotency-Key or SDK retry "
        "header), `equal` (same body), or `off`.",
        rich_help_panel=REPLIES,
    ),
]
CoalesceWindow = Annotated[
    float,
    typer.Option(min=0, help="Seconds to keep the results of a failed attempt.", rich_help_panel=REPLIES),
]
Grace = Annotated[
    float,
    typer.Option(
        min=0, help="Seconds that running replies have to finish after SIGTERM.", rich_help_panel=LISTENING
    ),
]
BodyLimit = Annotated[
    int, typer.Option(min=1024, help="Maximum size of a request in bytes.", rich_help_panel=LISTENING)
]
GatewayRules = Annotated[
    str,
    typer.Option(
        "--rules-url",
        help="MCP URL of the rule service; `none` turns the rules off and forwards every request unchanged. "
        "The token is read from ASCL_RULES_TOKEN.",
        envvar="ASCL_RULES_URL",
        rich_help_panel=RULES,
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        help="Append every conversation to this episode log (default: no log).", rich_help_panel=LOG
    ),
]
LogKeepDays = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Write one log per day (log.2026-11-28.jsonl) and delete logs after this many days "
        "(default: one log, kept).",
        rich_help_panel=LOG,
    ),
]


def gateway(
    upstream: UpstreamOption,
    rules_url: GatewayRules = DEFAULT_RULES_URL,
    port: Port = 8809,
    host: Host = "127.0.0.1",
    allow_remote: AllowRemote = False,
    on_rules_error: OnRulesError = "answer",
    hint: GatewayHint = False,
    decision_bias: DecisionBias = None,
    decision_token: DecisionToken = None,
    hold: Hold = False,
    max_consultations: MaxConsultations = 4,
    timeout: UpstreamTimeout = 600,
    keepalive: Keepalive = 10,
    coalesce: Coalesce = "marked",
    coalesce_window: CoalesceWindow = 120,
    grace: Grace = 30,
    body_limit: BodyLimit = 32 * 1024 * 1024,
    log: LogOption = None,
    log_keep_days: LogKeepDays = None,
) -> None:
    """Run a proxy between an application and its model's API that lets the model consult the rules.

    The application needs no change. Its API key is sent to the upstream and never stored.

    \f
    Long because it declares one parameter per flag.
    """
    from agent.gateway import Settings
    from agent.gateway.app import serve
    from agent.tools import RulesClient

    if rules_url == "none" and on_rules_error != "answer":
        fail(f"--on-rules-error {on_rules_error} requires the rules: omit it, or --rules-url none", 2)
    if rules_url == "none" and hint:
        fail("hints come from the rule service: omit --hint, or --rules-url none", 2)
    if log_keep_days and log is None:
        fail("--log-keep-days applies to a log only: pass --log FILE too", 2)

    bias = logit_bias(decision_bias, decision_token)

    def run() -> None:
        settings = Settings(
            upstream,
            on_rules_error=on_rules_error,
            hint=hint,
            logit_bias=bias,
            hold=hold,
            log=log,
            log_keep_days=log_keep_days,
            max_consultations=max_consultations,
            body_limit=body_limit,
            timeout=timeout,
            keepalive=keepalive,
            coalesce=coalesce,
            coalesce_window=coalesce_window,
            grace=grace,
            allow_remote=allow_remote,
        )
        client = None
        source = "WITHOUT SAFETY RULES (--rules-url none)"
        if rules_url != "none":
            client = RulesClient(rules_url, os.environ.get("ASCL_RULES_TOKEN"))
            source = f"rules from {client.public_url}"

        def on_ready(url: str) -> None:
            typer.echo(f"ascl-agent: {url} forwards to {settings.public_upstream}, {source}", err=True)

        serve(settings, client, host, port, on_ready)

    exit_on_error(run)
