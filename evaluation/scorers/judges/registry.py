"""The judges by name, as `--judge` accepts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from evaluation.errors import JudgeError
from evaluation.scorers.judges.base import Judge
from evaluation.scorers.judges.guards import GraniteGuardian, LlamaGuard, Qwen3Guard, WildGuard
from evaluation.scorers.judges.rubrics import GptOssSafeguard, JsonRubric

JUDGES: dict[str, Callable[[], Any]] = {
    "wildguard": WildGuard,
    "llama-guard": LlamaGuard,
    "qwen3guard": Qwen3Guard,
    "gpt-oss-safeguard": GptOssSafeguard,
    "granite-guardian": GraniteGuardian,
    "rubric": JsonRubric,
}


def make_judge(kind: str, instructions: str | None = None) -> Judge:
    """Returns the adapter of a judge.

    Args:
        kind: a key of `JUDGES`.
        instructions: replaces the built-in policy, rubric, questions or criterion.

    Raises:
        JudgeError: the name is unknown, or the judge takes no instructions because its chat template asks
            the question. It is a ValueError.
    """
    if kind not in JUDGES:
        raise JudgeError(f"'{kind}' is not a judge: use one of {', '.join(JUDGES)}")
    adapter: Any = JUDGES[kind]()
    if instructions is not None:
        if not hasattr(adapter, "instructions"):
            raise JudgeError(f"{kind} takes no instructions: its chat template asks the question")
        adapter = replace(adapter, instructions=instructions)
    judge: Judge = adapter
    return judge
