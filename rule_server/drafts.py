"""A look at drafts before they are served."""

from __future__ import annotations

from dataclasses import replace

from rule_server.index import RuleIndex
from rule_server.prepare import Prepared
from rule_server.rulebook import Rulebook


def with_drafts(prepared: Prepared) -> Prepared:
    """The same, with every draft counted as active; nothing is kept, and no folder is followed."""
    book = prepared.index.rulebook
    rules = [
        rule.model_copy(update={"status": "active"}) if rule.status == "draft" else rule
        for rule in book.rules
    ]
    # Not by model_copy: it would carry the digest and the served rules of the original along.
    preview = Rulebook(name=book.name, version=book.version, categories=book.categories, rules=rules)
    index = RuleIndex.build(
        preview, prepared.encoder, prepared.index.vectors_by_text(), prepared.index.calibration
    )
    return replace(prepared, index=index, rules=())
