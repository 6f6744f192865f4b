"""`ascl-rules token`: creates, lists and removes the bearer tokens that `serve` accepts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rule_server.cli.options import AsJson, notify, print_json
from rule_server.cli.terminal import print_table

app = typer.Typer(no_args_is_help=True, help="Create, list and remove bearer tokens.")

TokensFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Token file (default: ASCL_RULES_TOKENS_FILE, else tokens.jsonl).",
        metavar="FILE",
    ),
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the caller, shown in logs.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="consult (query), read (rules, metrics, page) or admin (reload); repeatable "
            "(default: consult)."
        ),
    ] = None,
    file: TokensFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a token, print it once, and append its hash to the file. A running service accepts it at once.

    Example: ascl-rules token new ci-agent --scope consult --scope read
    """
    from rule_server.api.auth import SCOPES, new_token
    from rule_server.errors import StartError
    from rule_server.observability import now

    scopes = [known for known in SCOPES if known in (scope or ["consult"])]
    unknown = sorted(set(scope or ()) - set(SCOPES))
    if unknown:
        raise StartError(f"{unknown[0][:40]!r} is not a scope: choose from {', '.join(SCOPES)}")
    token = new_token(_tokens_file(file), name, scopes, now())
    if as_json:
        print_json({"name": name, "scopes": scopes, "token": token})
        return
    typer.echo(token)
    notify(
        f"the token is shown only once; {_tokens_file(file)} stores only its hash. "
        "Clients send `Authorization: Bearer TOKEN`"
    )


@app.command("list")
def list_(file: TokensFile = None, as_json: AsJson = False) -> None:
    """List the names and scopes of the tokens in the file.

    Example: ascl-rules token list --json
    """
    from rule_server.api.auth import read_tokens

    entries = read_tokens(_tokens_file(file))
    if as_json:
        print_json([entry.model_dump(exclude={"sha256"}) for entry in entries])
    else:
        rows = [(entry.name, " ".join(entry.scopes), entry.created) for entry in entries]
        print_table([("name", "scopes", "created (UTC)"), *rows], cut=(0, 1))


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of the caller.")], file: TokensFile = None) -> None:
    """Remove a token from the file. A running service rejects it from the next request on.

    Example: ascl-rules token remove ci-agent
    """
    from rule_server.api.auth import remove_token

    remove_token(_tokens_file(file), name)
    notify(f"removed the token of {name}")


def create_first(file: Path | None) -> None:
    """Creates a token file that does not exist yet, with one token, and prints the token on standard output.

    Raises:
        StartError: no token file is set, or it cannot be written.
    """
    from rule_server.api.auth import new_token
    from rule_server.errors import StartError
    from rule_server.observability import now

    if file is None:
        raise StartError("create_token is set, but there is no token file: set ASCL_RULES_TOKENS_FILE too")
    if file.exists():
        return
    typer.echo(new_token(file, "first", ["consult", "read"], now()))
    notify(f"created {file} with the token above, which is shown only once; it may consult and read")


def _tokens_file(file: Path | None) -> Path:
    return file or Path(os.environ.get("ASCL_RULES_TOKENS_FILE") or "tokens.jsonl")
