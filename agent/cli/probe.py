"""TODO: docstring."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import AsJson, Timeout, or_exit

if TYPE_CHECKING:
    from agent.endpoint import Quirks


def probe(
    url: Annotated[str, typer.Argument(help="Base URL of the endpoint, with /v1.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Model name; left out: the first listed.")] = None,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Find out an endpoint's habits with a dozen small requests, and print them as a row of `quirks`."""
    from agent.cli.tables import StepView, print_quirks
    from agent.endpoint import STEPS
    from agent.endpoint import probe as find_out

    key = os.environ.get("OPENAI_API_KEY")
    with StepView(STEPS) as view:
        found = or_exit(
            lambda: asyncio.run(find_out(url, model, api_key=key, timeout=timeout, on_step=view.step))
        )
    if as_json:
        typer.echo(json.dumps({"model": found.model, **row_of(found.row), "notes": found.notes}))
        return
    print_quirks([found.row])
    for note in found.notes:
        typer.echo(f"note: {note}")


def quirks(as_json: AsJson = False) -> None:
    """Print what is known of providers: names for --provider, and where they differ."""
    from agent.cli.tables import print_quirks
    from agent.endpoint import PROFILES

    if as_json:
        typer.echo(json.dumps([row_of(row) for row in PROFILES]))
    else:
        print_quirks(PROFILES)


def row_of(row: Quirks) -> dict[str, str]:
    """A row of the quirks table for JSON output."""
    from agent.endpoint import quirk_columns

    return {column: getattr(row, column) for column in quirk_columns()}
