"""Error messages and options shared by the commands of `ascl-eval` and `ascl-train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from agent.episode import SkippedLine

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_version(wanted: bool) -> None:
    """Prints the version of ASCL and exits, if wanted."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ascl {version('ascl')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version),
]


PromptSpec = Annotated[
    str,
    typer.Option(
        help="JSON Lines of prompts, builtin:held_out, builtin:train, builtin:conversations (played turn by "
        "turn), suites (suite:xstest?limit=99) or a Hugging Face dataset: hub:OWNER/NAME?kind=harmful.",
        show_default=True,
    ),
]
MAX_SKIPPED_LINES = 3


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


def warn_of_skipped(log: Path, skipped: Sequence[SkippedLine]) -> None:
    """Prints the first skipped lines of a log, and the number of the rest."""
    for line in skipped[:MAX_SKIPPED_LINES]:
        typer.echo(
            f"ascl-eval: skipped line {line.line} of {log}, which is not an episode: {line.reason}", err=True
        )
    if len(skipped) > MAX_SKIPPED_LINES:
        typer.echo(f"ascl-eval: and {len(skipped) - MAX_SKIPPED_LINES} more lines of {log}", err=True)
