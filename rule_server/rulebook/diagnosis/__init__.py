"""Reads broken files as far as possible, and explains all their problems, each with its line and fix."""

from rule_server.rulebook.diagnosis.explain import RuleFileError, mostly_missing, validate
from rule_server.rulebook.diagnosis.mistakes import HEADING
from rule_server.rulebook.diagnosis.repair import (
    Fault,
    RepairBudget,
    YamlSource,
    read_front_matter,
    read_yaml,
)

__all__ = [
    "HEADING",
    "Fault",
    "RepairBudget",
    "RuleFileError",
    "YamlSource",
    "mostly_missing",
    "read_front_matter",
    "read_yaml",
    "validate",
]
