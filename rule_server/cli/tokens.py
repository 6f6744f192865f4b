"""ascl-rules token: make, list and remove the bearer tokens that `serve` asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rule_server.cli.options import AsJson, notify, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Make, list and remove bearer tokens.")

TokensFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Token file. Default: ASCL_RULES_TOKENS_FILE, else tokens.jsonl.",
        metavar="FILE",
    ),
]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose token it is, as logs will say.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="consult (ask), read (rules, metrics, page), admin (reload); repeatable. [consult]"
        ),
    ] = None,
    file: TokensFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, print it this once, and append its hash to the file; a running service takes it up.

    Example: ascl-rules token new ci-agent --scope consult --scope read
    """
    from rule_server.api.auth import SCOPES, new_token
    from rule_server.errors import StartError
    from rule_server.observability import now

    wanted = [known for known in SCOPES if known in (scope or ["consult"])]
    unknown = sorted(set(scope or ()) - set(SCOPES))
    if unknown:
        raise StartError(f"{unknown[0][:40]!r} is no scope: choose from {', '.join(SCOPES)}")
    token = new_token(_file(file), name, wanted, now())
    if as_json:
        print_json({"name": name, "scopes": wanted, "token": token})
        return
    typer.echo(token)
    notify(f"it is shown this once; {_file(file)} keeps its hash. Clients send `Authorization: Bearer TOKEN`")


@app.command("list")
def list_(file: TokensFile = None, as_json: AsJson = False) -> None:
    """Names and scopes of the tokens in the file.

    Example: ascl-rules token list --json
    """
    from rule_server.api.auth import read_tokens

    entries = read_tokens(_file(file))
    if as_json:
        print_json([entry.model_dump(exclude={"sha256"}) for entry in entries])
    else:
        rows = [(entry.name, " ".join(entry.scopes), entry.created) for entry in entries]
        print_table([("name", "scopes", "created (UTC)"), *rows])


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Whose token goes.")], file: TokensFile = None) -> None:
    """Take a token out of the file; a running service refuses it from the next request on.

    Example: ascl-rules token remove ci-agent
    """
    from rule_server.api.auth import remove_token

    remove_token(_file(file), name)
    notify(f"the token of {name} is removed")


def _file(given: Path | None) -> Path:
    return given or Path(os.environ.get("ASCL_RULES_TOKENS_FILE") or "tokens.jsonl")
