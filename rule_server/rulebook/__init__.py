"""Parses Markdown rule files into a validated `Rulebook` with a digest."""

from rule_server.rulebook.diagnosis import RuleFileError
from rule_server.rulebook.front_matter import parse_yaml
from rule_server.rulebook.ignored import is_ignored
from rule_server.rulebook.loader import (
    MAX_RULEBOOK_BYTES,
    MAX_RULES,
    Folders,
    ReadResult,
    layer_prefixes,
    list_names,
    load_rulebook,
    read_folders,
    resolve_layers,
)
from rule_server.rulebook.model import (
    Category,
    Rule,
    Rulebook,
    Stance,
    describe_contents,
    describe_scope,
    with_drafts_active,
)
from rule_server.rulebook.parser import MAX_FILE_BYTES, LintProblem, Problem, read_yaml_file
from rule_server.rulebook.visible import has_visible, visible_text

__all__ = [
    "Category",
    "Folders",
    "LintProblem",
    "MAX_FILE_BYTES",
    "MAX_RULEBOOK_BYTES",
    "MAX_RULES",
    "Problem",
    "ReadResult",
    "Rule",
    "RuleFileError",
    "Rulebook",
    "Stance",
    "has_visible",
    "describe_contents",
    "describe_scope",
    "is_ignored",
    "layer_prefixes",
    "list_names",
    "load_rulebook",
    "parse_yaml",
    "read_folders",
    "read_yaml_file",
    "resolve_layers",
    "visible_text",
    "with_drafts_active",
]
