"""The rule service: a rulebook of Markdown files, searched by meaning, served by MCP and REST.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rule_server.app import create_app
    from rule_server.artefact import Artefact
    from rule_server.encoder import Encoder, OnnxEncoder
    from rule_server.errors import (
        ArtefactError,
        ConsultError,
        EncoderError,
        NotReadyError,
        RulebookError,
        RuleServiceError,
        StartError,
    )
    from rule_server.index import RuleIndex
    from rule_server.lint import lint_rules
    from rule_server.rule_files import Problem, load_rulebook
    from rule_server.rulebook import Category, Rule, Rulebook
    from rule_server.schemas import ConsultRequest, ConsultResponse
    from rule_server.service import RuleService
    from rule_server.settings import Settings

_HOME = {
    "Artefact": "artefact",
    "ArtefactError": "errors",
    "Category": "rulebook",
    "ConsultError": "errors",
    "ConsultRequest": "schemas",
    "ConsultResponse": "schemas",
    "Encoder": "encoder",
    "EncoderError": "errors",
    "NotReadyError": "errors",
    "OnnxEncoder": "encoder",
    "Problem": "rule_files",
    "Rule": "rulebook",
    "RuleIndex": "index",
    "RuleService": "service",
    "RuleServiceError": "errors",
    "Rulebook": "rulebook",
    "RulebookError": "errors",
    "Settings": "settings",
    "StartError": "errors",
    "create_app": "app",
    "lint_rules": "lint",
    "load_rulebook": "rule_files",
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
