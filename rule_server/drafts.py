"""A look at drafts before they are served."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rule_server.rulebook import Rulebook

if TYPE_CHECKING:
    from rule_server.prepare import Prepared


def with_drafts(prepared: Prepared) -> Prepared:
    """The same, with every draft counted as active; nothing is kept, and no folder is followed."""
    from rule_server.index import RuleIndex

    index = prepared.index
    preview = activated(index.rulebook)
    known = index.vectors_by_text()
    return replace(
        prepared, index=RuleIndex.build(preview, prepared.encoder, known, index.calibration), rules=()
    )


def activated(book: Rulebook) -> Rulebook:
    """The rulebook with every draft counted as active."""
    rules = [
        rule.model_copy(update={"status": "active"}) if rule.status == "draft" else rule
        for rule in book.rules
    ]
    # Not by model_copy: it would carry the digest and the served rules of the original along.
    return Rulebook(name=book.name, version=book.version, categories=book.categories, rules=rules)
