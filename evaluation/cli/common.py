"""Error messages and options shared by the commands of `ascl-eval` and `ascl-train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from agent.cli.options import AsJson, Version, shorten_types_in_help

if TYPE_CHECKING:
    from agent.episode import SkippedLine
    from evaluation.reports.render import Table

__all__ = [
    "AsJson",
    "Overwrite",
    "PromptSpec",
    "Version",
    "exit_on_error",
    "fail",
    "print_tables",
    "refuse_existing",
    "shorten_types_in_help",
    "warn_of_skipped",
]

PromptSpec = Annotated[
    str,
    typer.Option(
        help="JSON Lines of prompts, builtin:held_out, builtin:train, builtin:conversations (played turn by "
        "turn), suites (suite:xstest?limit=99) or a Hugging Face dataset: hub:OWNER/NAME?kind=harmful.",
        show_default=True,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results in --out, if any exist.")]
MAX_SKIPPED_LINES = 3
NAME_COLUMNS = ("arm", "change", "kind", "metric")


@contextmanager
def exit_on_error(
    code: int = 1,
    *,
    command: str = "ascl-eval",
    extra: str = "eval",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Prints an error that the user can fix as one sentence, and exits.

    Args:
        code: exit code of the command.
        command: prefix of the message.
        extra: extra of the package to install if a dependency is missing.
        also: further errors to report, such as the base class of another package's errors.
    """
    from agent.errors import AgentError
    from evaluation.errors import EvaluationError

    reported: tuple[type[Exception], ...] = (AgentError, EvaluationError, *also)
    try:
        yield
    except reported as error:
        fail(str(error), code, command=command)
    except ModuleNotFoundError as error:
        message = f"the package {error.name} is not installed: run `pip install 'ascl[{extra}]'`"
        fail(message, code, command=command)
    except BrokenPipeError:
        raise  # the reader of the output has left, as `| head` does; typer ends the command
    except OSError as error:
        message = f"{error.filename or 'a file'} cannot be used: {error.strerror or error}"
        fail(message, code, command=command)


def fail(message: str, code: int, *, command: str = "ascl-eval") -> NoReturn:
    """Prints a message to standard error and exits with `code`."""
    typer.echo(f"{command}: {message}", err=True)
    raise typer.Exit(code)


def refuse_existing(result: Path, overwrite: bool, *, command: str = "ascl-eval") -> None:
    """Exits with code 1 if a finished run has written `result`, unless it may be overwritten."""
    if result.is_file() and not overwrite:
        fail(f"{result} already exists: choose another --out, or pass --overwrite", 1, command=command)


def print_tables(markdown: str, tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Prints tables as Markdown, or in columns where a terminal is too narrow for that.

    Args:
        tables: headings and rows; the columns of names (arm, change, kind) are shortened first.
        notes: paragraphs after the tables.
    """
    from agent.cli.tables import output_width, print_columns

    width = output_width()
    if width is None or max(map(len, markdown.splitlines()), default=0) <= width:
        typer.echo(markdown)
        return
    for headings, rows in tables:
        names = [at for at, heading in enumerate(headings) if heading in NAME_COLUMNS]
        print_columns(headings, rows, cut=names)
        typer.echo()
    typer.echo("\n\n".join(note for note in notes if note))


def warn_of_skipped(log: Path, skipped: Sequence[SkippedLine]) -> None:
    """Prints the first skipped lines of a log, and the number of the rest."""
    for line in skipped[:MAX_SKIPPED_LINES]:
        typer.echo(
            f"ascl-eval: skipped line {line.line} of {log}, which is not an episode: {line.reason}", err=True
        )
    if len(skipped) > MAX_SKIPPED_LINES:
        typer.echo(f"ascl-eval: and {len(skipped) - MAX_SKIPPED_LINES} more lines of {log}", err=True)
