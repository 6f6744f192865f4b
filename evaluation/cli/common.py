"""What the commands of `ascl-eval` share: one-sentence errors, and the `--json` flag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def clear_errors(code: int = 1) -> Iterator[None]:
    """Turn what a user can mend into one sentence and an exit code."""
    from agent.errors import AgentError
    from evaluation.metrics import AgreementError
    from evaluation.prompts import PromptError
    from evaluation.reports import ArmError, ComparisonError
    from evaluation.rule_edit import RuleEditError
    from evaluation.scorers import LabelError, RewardError
    from evaluation.scorers.judges.judgement import JudgementError

    try:
        yield
    except (
        *(AgentError, AgreementError, ArmError, ComparisonError),
        *(JudgementError, LabelError, PromptError, RewardError, RuleEditError),
    ) as error:
        fail(str(error), code)
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is not installed: run `pip install 'ascl[eval]'`", code)
    except OSError as error:
        fail(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", code)


def fail(sentence: str, code: int) -> NoReturn:
    """Say what is wrong on standard error, and end with an exit code."""
    typer.echo(f"ascl-eval: {sentence}", err=True)
    raise typer.Exit(code)


PromptSpec = Annotated[
    str,
    typer.Option(
        help="JSON Lines of prompts, builtin:held_out, builtin:train, or a data set: "
        "hub:OWNER/NAME?kind=harmful.",
        show_default=True,
    ),
]


def _warn_of_skipped(log: Path, skipped: list[Any]) -> None:
    for line in skipped[:3]:
        typer.echo(
            f"ascl-eval: line {line.line} of {log} is no episode and is left out: {line.reason}", err=True
        )
    if len(skipped) > 3:
        typer.echo(f"ascl-eval: and {len(skipped) - 3} more lines of {log}", err=True)
