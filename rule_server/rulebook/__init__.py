"""Parses Markdown rule files into a validated `Rulebook` with a digest."""

from rule_server.rulebook.front_matter import parse_yaml
from rule_server.rulebook.loader import (
    MAX_BYTES,
    MAX_RULES,
    Folders,
    Reading,
    layers,
    load_rulebook,
    read_folders,
)
from rule_server.rulebook.model import Category, Rule, Rulebook, Stance, with_drafts_active
from rule_server.rulebook.parser import MAX_FILE, LintProblem, Problem

__all__ = [
    "Category",
    "Folders",
    "LintProblem",
    "MAX_BYTES",
    "MAX_FILE",
    "MAX_RULES",
    "Problem",
    "Reading",
    "Rule",
    "Rulebook",
    "Stance",
    "layers",
    "load_rulebook",
    "parse_yaml",
    "read_folders",
    "with_drafts_active",
]
