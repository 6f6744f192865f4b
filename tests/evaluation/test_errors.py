"""The family of errors."""

from __future__ import annotations

import importlib

import pytest

import agent
import evaluation
from evaluation.errors import EvaluationError, InputError

HOMES = {
    "AgreementError": ("evaluation.metrics", "evaluation.metrics.agreement"),
    "ArmError": ("evaluation.reports", "evaluation.reports.arm_log"),
    "ComparisonError": ("evaluation.reports", "evaluation.reports.compare"),
    "JudgementError": ("evaluation.scorers.judges", "evaluation.scorers.judges.judgement"),
    "LabelError": ("evaluation.scorers", "evaluation.scorers.labels"),
    "MalformedError": ("evaluation.scorers.judges", "evaluation.scorers.judges.base"),
    "PromptError": ("evaluation", "evaluation.prompts"),
    "RewardError": ("evaluation", "evaluation.scorers"),
    "RuleEditError": ("evaluation.rule_edit",),
}


@pytest.mark.parametrize("name", sorted(HOMES))
def test_every_input_error_is_a_value_error_of_the_family(name: str) -> None:
    error = getattr(importlib.import_module("evaluation.errors"), name)
    assert issubclass(error, InputError)
    assert issubclass(error, EvaluationError)
    assert issubclass(error, ValueError)
    for module in HOMES[name]:
        assert getattr(importlib.import_module(module), name) is error


def test_prompts_and_their_errors_are_those_of_the_agent() -> None:
    error = evaluation.PromptError("no such file")
    assert isinstance(error, agent.PromptError)
    assert (str(error), error.boundary, error.type, error.setup) == (
        "no such file",
        "prompts",
        "error",
        False,
    )
    assert issubclass(evaluation.Prompt, importlib.import_module("agent.rollout").Prompt)
