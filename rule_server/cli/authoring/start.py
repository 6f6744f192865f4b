"""Commands that write new rule files: init and new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rule_server.cli.options import Rules, load_cli_settings, notify
from rule_server.errors import StartError


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


def new(
    id: Annotated[str, typer.Argument(help="Id of the new rule.", metavar="CATEGORY.RULE")],
    rules: Rules = None,
    stance: Annotated[str, typer.Option(help="answer, limit or decline.", metavar="STANCE")] = "limit",
    title: Annotated[str | None, typer.Option(help="A few words (default: from the id).")] = None,
) -> None:
    """Start a rule from a template, as a draft. Creates a missing category and rulebook.yaml too.

    Example: ascl-rules new banking.card-limits --rules my-rules
    """
    settings = load_cli_settings(dir=rules)
    from rule_server.authoring.template import write_rule
    from rule_server.rulebook.parser import CATEGORY_FILE

    if not settings.dir:
        raise StartError("no rules folder is named: specify yours with --rules")
    folder = settings.dir[-1]
    files = write_rule(folder, id, stance=stance, title=title, beneath=settings.dir[:-1])
    for file in files:
        typer.echo(str(file))
    if stance != "answer" and any(file.name == CATEGORY_FILE for file in files):
        category = id.partition(".")[0]
        notify(
            f"the new category {category} needs an active rule that says what is fine too: "
            f"`ascl-rules new {category}.general --stance answer --rules {folder}`"
        )
    notify(f"edit {files[-1]}, then `ascl-rules lint --rules {folder}`")
    notify(f'try it with `ascl-rules query --draft --rules {folder} "a question"`')
    notify(f"set `status: active` to serve it, and add its questions to {folder / 'expect.yaml'}")
