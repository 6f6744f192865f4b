"""Measures whether an edited rule changes the answers."""

from evaluation.errors import RuleEditError
from evaluation.rule_edit.edit import prepare_edit
from evaluation.rule_edit.experiment import EditOptions, run_edit
from evaluation.rule_edit.proof import PHASES, edit_proof, format_proof

__all__ = ["EditOptions", "PHASES", "RuleEditError", "edit_proof", "format_proof", "prepare_edit", "run_edit"]
