"""Checks a rulebook for mistakes that loading it does not detect."""

from rule_server.authoring.lint.linter import Search, lint_rules, overdue

__all__ = ["Search", "lint_rules", "overdue"]
