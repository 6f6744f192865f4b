"""`ascl-agent probe` and `ascl-agent quirks`: capabilities of endpoints."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import AsJson, Timeout, exit_on_error

if TYPE_CHECKING:
    from agent.endpoint import Quirks

UrlArgument = Annotated[
    str, typer.Argument(help="Base URL of the endpoint, usually ending in /v1.", show_default=False)
]
ModelOption = Annotated[
    str | None, typer.Option(help="Model name (default: the first that the endpoint lists).")
]


def probe(
    url: UrlArgument, model: ModelOption = None, timeout: Timeout = 120, as_json: AsJson = False
) -> None:
    """Probe an endpoint's capabilities with a dozen small requests and print one row of the quirks table."""
    from agent.cli.tables import StepView, print_quirks
    from agent.endpoint import PROBE_STEPS, probe_endpoint

    key = os.environ.get("OPENAI_API_KEY")
    with StepView(PROBE_STEPS) as view:
        result = exit_on_error(
            lambda: asyncio.run(probe_endpoint(url, model, api_key=key, timeout=timeout, on_step=view.step))
        )
    if as_json:
        typer.echo(json.dumps({"model": result.model, **row_fields(result.row), "notes": result.notes}))
        return
    print_quirks([result.row])
    for note in result.notes:
        typer.echo(f"note: {note}")


def quirks(as_json: AsJson = False) -> None:
    """Print the quirks table: the names that --provider accepts, and how the providers differ."""
    from agent.cli.tables import print_quirks
    from agent.endpoint import PROFILES

    if as_json:
        typer.echo(json.dumps([row_fields(row) for row in PROFILES]))
    else:
        print_quirks(PROFILES)


def row_fields(row: Quirks) -> dict[str, str]:
    """Returns a row of the quirks table for JSON output."""
    from agent.endpoint import quirk_columns

    return {column: getattr(row, column) for column in quirk_columns()}
