"""Chat with a model that may consult the rules, sample episodes and inspect logs."""

from __future__ import annotations

import typer

from agent.cli.chat import chat
from agent.cli.gateway import gateway
from agent.cli.log import register_log_commands
from agent.cli.options import Version, shorten_types_in_help
from agent.cli.probe import probe, quirks
from agent.cli.run import run

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def root(version: Version = False) -> None:
    """Reads the options that precede a command."""


app.command(
    epilog='Example: ascl-agent chat "How do I sharpen a kitchen knife?" --base-url URL --model NAME'
)(chat)
app.command(
    epilog="Example: ascl-agent run --prompts prompts.jsonl --samples 8 --log runs/train.jsonl "
    "--base-url http://127.0.0.1:8810/v1 --model NAME"
)(run)
app.command(epilog="Example: ascl-agent probe http://127.0.0.1:8000/v1 --json")(probe)
app.command(epilog="Example: ascl-agent quirks --json")(quirks)
app.command(
    epilog="Example: ascl-agent gateway --upstream http://127.0.0.1:8000/v1 --port 8809; then set your "
    "application's base URL to http://127.0.0.1:8809/v1"
)(gateway)
register_log_commands(app)
shorten_types_in_help(app)


def main() -> None:
    """Entry point of `ascl-agent`."""
    app()
