"""Helpers of the `ascl-train` commands: one-sentence errors, the `--json` flag, and process settings."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import typer

from evaluation.cli import common
from evaluation.cli.common import AsJson, Overwrite, Version, shorten_types_in_help

__all__ = [
    "AsJson",
    "Overwrite",
    "Version",
    "exit_on_error",
    "fail",
    "is_rank_zero",
    "let_idle_threads_sleep",
    "refuse_existing",
    "resolve_recipe",
    "shorten_types_in_help",
]

COMMAND = "ascl-train"
RECIPES = Path(__file__).parents[1] / "recipes"
BUILTIN = "builtin:"


def resolve_recipe(config: Path | None) -> Path | None:
    """Returns the file of a recipe `builtin:NAME`; any other path unchanged.

    Raises:
        typer.BadParameter: there is no recipe with this name.
    """
    if config is None or not str(config).startswith(BUILTIN):
        return config
    name = str(config).removeprefix(BUILTIN)
    names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    if name not in names:
        known = ", ".join(f"{BUILTIN}{known}" for known in names)
        raise typer.BadParameter(f"there is no recipe '{config}': choose one of {known}")
    return RECIPES / f"{name}.yaml"


def exit_on_error() -> AbstractContextManager[None]:
    """Prints an error that the user can fix as one sentence, and exits with code 1."""
    from trainer.errors import TrainerError

    return common.exit_on_error(command=COMMAND, extra="train", also=(TrainerError,))


def refuse_existing(result: Path, overwrite: bool) -> None:
    """Exits with code 1 if a finished run has written `result`, unless it may be overwritten."""
    common.refuse_existing(result, overwrite, command=COMMAND)


def fail(message: str, code: int) -> NoReturn:
    """Prints an error to standard error and exits with `code`."""
    common.fail(message, code, command=COMMAND)


def let_idle_threads_sleep() -> None:
    """Stops idle OpenMP threads from spinning, which halves the speed of a busy machine.

    Call it before torch loads, which reads the variable.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def is_rank_zero() -> bool:
    """Returns whether this process has rank 0, which prints the result of a distributed run."""
    return os.environ.get("RANK", "0") == "0"
