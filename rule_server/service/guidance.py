"""Texts that tell a model when to consult the rulebook that is served."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rule_server.errors import RulebookError
from rule_server.rulebook import Rulebook, RuleFileError, describe_scope
from rule_server.rulebook.parser import MANIFEST, parse_manifest
from rule_server.settings import packaged_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rule_server.rulebook import Category
    from rule_server.schemas import ConsultResponse

RULE_TOOL = "consult_safety_rules"
HINT_VERSION = "1"
"""Version of the wording of `hint_line`. Increment it with every change."""
MAX_SCOPE_CHARS = 440
"""Maximum length of a clause made of titles and summaries: with a longer one, the tool list takes more than
600 tokens."""


def scope(rulebook: Rulebook) -> str:
    """Returns when to consult a rulebook, as a clause: its `consult_when`, else what its categories cover."""
    if rulebook.consult_when:
        return rulebook.consult_when
    used = {rule.category for rule in rulebook.served.values()}
    return _fitting([category for category in rulebook.categories if category.id in used])


def _fitting(categories: Sequence[Category]) -> str:
    """Describes categories by titles and summaries, or by titles, or by as many titles as fit."""
    for summaries in (True, False):
        if len(text := describe_scope(categories, summaries=summaries)) <= MAX_SCOPE_CHARS:
            return text
    count = len(categories)
    while count > 1 and len(describe_scope(categories[:count])) > MAX_SCOPE_CHARS:
        count -= 1
    return f"{describe_scope(categories[:count])}; or {len(categories) - count} more areas"


def tool_description(rulebook: Rulebook) -> str:
    """Returns the description of the rule tool that a model reads."""
    return (
        f"Look up written safety rules. Call it when {scope(rulebook)}. Do not call it for everyday "
        "requests such as maths, coding, writing, cooking or small talk. Returns the nearest rules: what is "
        "fine, what is not, how to answer; or no_applicable_rule: then answer as usual."
    )


def guidance(rulebook: Rulebook) -> str:
    """Returns the system text that tells a model when and how to consult."""
    return (
        f"You can look up written safety rules with the tool {RULE_TOOL}. Decide for each request whether "
        f"you need them. When {scope(rulebook)}, describe the request and what is delicate in it, read what "
        "comes back and think again before you answer: the rules say what is fine as much as what is not. "
        "Answer everyday requests directly. A rule is guidance for your judgement; do not quote it."
    )


def hint_line(response: ConsultResponse) -> str:
    """Returns one line about the rules near a request, for a model that decides whether to consult."""
    if response.reason is not None:
        return "The safety rules cannot be searched in the language of this request."
    if not response.rules:
        return "No safety rule is near this request."
    near = "; ".join(f"{rule.title} ({rule.stance})" for rule in response.rules)
    return f"Safety rules near this request: {near}. Look them up before you answer if they matter."


def has_packaged_scope(rulebook: Rulebook) -> bool:
    """Returns whether a rulebook is to be consulted exactly when the packaged one is."""
    return rulebook.consult_when is not None and rulebook.consult_when == _packaged_scope()


@cache
def _packaged_scope() -> str | None:
    try:
        return parse_manifest(packaged_rules() / MANIFEST).consult_when
    except (OSError, RuleFileError, RulebookError):
        return None
