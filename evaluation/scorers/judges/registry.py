"""The judges by name, as `--judge` takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    """The adapter of a name, with other instructions where it takes any.

    Raises:
        ValueError: for an unknown name, or instructions for a judge whose server asks the question.
    """
    if kind not in JUDGES:
        raise ValueError(f"'{kind}' is no judge: use one of {', '.join(JUDGES)}")
    judge: Any = JUDGES[kind]()
    if instructions is not None:
        if not hasattr(judge, "instructions"):
            raise ValueError(f"{kind} takes no instructions: its chat template asks the question")
        judge = replace(judge, instructions=instructions)
    made: Judge = judge
    return made
