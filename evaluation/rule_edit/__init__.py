"""Measures whether an edited rule changes the answers."""

from evaluation.rule_edit.edit import RuleEditError, prepare_edit
from evaluation.rule_edit.proof import PHASES, edit_proof, format_proof

__all__ = ["PHASES", "RuleEditError", "edit_proof", "format_proof", "prepare_edit"]
