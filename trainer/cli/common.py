"""What the commands of `ascl-train` share: one-sentence errors, and the `--json` flag."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def idle_threads_sleep() -> None:
    """OpenMP threads that spin while idle halve the speed of a busy machine; read when torch loads."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def is_first_process() -> bool:
    """Whether this process of a distributed run is the one that tells."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what a user can mend into one sentence and an exit code."""
    from agent.errors import AgentError
    from evaluation.prompts import PromptError
    from evaluation.scorers import RewardError
    from trainer.errors import TrainerError

    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is not installed: run `pip install 'ascl[train]'`", 1)
    except (TrainerError, AgentError, PromptError, RewardError) as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", 1)


def fail(sentence: str, code: int) -> NoReturn:
    """Say what is wrong on standard error, and end with an exit code."""
    typer.echo(f"ascl-train: {sentence}", err=True)
    raise typer.Exit(code)
