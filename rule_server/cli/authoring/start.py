"""Commands that write new rule files: init and new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rule_server.cli.options import notify


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Do not extend the packaged rules.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the rulebook (default: the folder name).")] = None,
) -> None:
    """Create your own rulebook, as a layer over the packaged rules or standalone.

    A layer can add rules, and replace or retire packaged rules by ID.

    Example: ascl-rules init my-rules
    """
    from rule_server.authoring import write_starter

    for file in write_starter(folder, standalone=standalone, name=name):
        typer.echo(str(file))
    notify(
        f"edit these, then `ascl-rules lint --rules {folder}` and `ascl-rules serve --rules {folder}`"
        + ("" if standalone else "; the example rule is a draft: try it with `ascl-rules query --draft`")
    )
