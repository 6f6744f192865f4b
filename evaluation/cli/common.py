"""What the commands of `ascl-eval` share: one-sentence errors, and the `--json` flag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def clear_errors(code: int = 1) -> Iterator[None]:
    """Turn what a user can mend into one sentence and an exit code."""
    from agent.errors import AgentError
    from evaluation.agreement import AgreementError
    from evaluation.arms import ArmError
    from evaluation.comparison import ComparisonError
    from evaluation.judges.judgement import JudgementError
    from evaluation.labels import LabelError
    from evaluation.prompts import PromptError
    from evaluation.rewards import RewardError
    from evaluation.rule_edit import RuleEditError

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
