"""The rule service: a rulebook of Markdown files, searched by meaning, served over MCP and REST.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rule_server.api.app import create_app
    from rule_server.authoring.lint import lint_rules
    from rule_server.errors import (
        ArtefactError,
        ConsultError,
        EncoderError,
        NotReadyError,
        RulebookError,
        RuleServiceError,
        StartError,
    )
    from rule_server.retrieval import Encoder, OnnxEncoder
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.index import RuleIndex
    from rule_server.rulebook import Category, LintProblem, Problem, Rule, Rulebook, load_rulebook
    from rule_server.schemas import ConsultRequest, ConsultResponse
    from rule_server.service.rule_service import RuleService
    from rule_server.settings import Settings

_HOME = {
    "Artefact": "retrieval.artefact",
    "ArtefactError": "errors",
    "Category": "rulebook.model",
    "ConsultError": "errors",
    "ConsultRequest": "schemas",
    "ConsultResponse": "schemas",
    "Encoder": "retrieval.encoders",
    "EncoderError": "errors",
    "NotReadyError": "errors",
    "OnnxEncoder": "retrieval.encoders",
    "LintProblem": "rulebook.parser",
    "Problem": "rulebook.parser",
    "Rule": "rulebook.model",
    "RuleIndex": "retrieval.index",
    "RuleService": "service.rule_service",
    "RuleServiceError": "errors",
    "Rulebook": "rulebook.model",
    "RulebookError": "errors",
    "Settings": "settings",
    "StartError": "errors",
    "create_app": "api.app",
    "lint_rules": "authoring.lint.linter",
    "load_rulebook": "rulebook.loader",
}

__all__ = [
    "Artefact",
    "ArtefactError",
    "Category",
    "ConsultError",
    "ConsultRequest",
    "ConsultResponse",
    "Encoder",
    "EncoderError",
    "NotReadyError",
    "OnnxEncoder",
    "LintProblem",
    "Problem",
    "Rule",
    "RuleIndex",
    "RuleService",
    "RuleServiceError",
    "Rulebook",
    "RulebookError",
    "Settings",
    "StartError",
    "create_app",
    "lint_rules",
    "load_rulebook",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rule_server' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rule_server.{_HOME[name]}"), name)
