"""Checks the links of rules: to web pages, to other rules and to files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from urllib.parse import urlsplit

from rule_server.rulebook import LintProblem, Rule, Rulebook

_MARKDOWN = re.compile(r"\]\(\s*<?([^)\s>]*)")
_NAMED = re.compile(r"(?<![\w./-])([a-z0-9]+(?:-[a-z0-9]+)*)\.([a-z0-9]+(?:-[a-z0-9]+)*)(?![\w/-]|\.\w)")


def check_links(
    rulebook: Rulebook, files: Mapping[tuple[str, str], str], broken: Set[str] = frozenset()
) -> list[LintProblem]:
    """Finds broken references and links, and ids in the prose that no served rule has.

    Links to `broken` rules, whose files cannot be read, count as valid.
    """
    known = {rule.id: rule for rule in rulebook.rules if not rule.lang}
    categories = {category.id for category in rulebook.categories}
    problems = []
    for rule in rulebook.rules:
        file = files[rule.id, rule.lang]
        for target in [*rule.references, *_MARKDOWN.findall(rule.text)]:
            if any(id in target.replace("/", ".") for id in broken):
                continue
            fault = _fault(target, rule, known, files)
            if fault is not None:
                fix = "name a web address (https://...), the id of a rule, or a rule's file"
                problems.append(LintProblem.sanitized(file, f"the link {target!r} {fault}", fix))
        prose = " ".join([rule.title, rule.applies_when, rule.not_when or "", rule.text])
        for category, name in dict.fromkeys(_NAMED.findall(prose)):
            id = f"{category}.{name}"
            if category not in categories or name in ("md", "com", "org", "net"):
                continue  # a file name, a host name or the end of a sentence
            if id in broken:
                continue
            if id not in known:
                problems.append(
                    LintProblem.sanitized(file, f"its text names {id}, which is not a rule", "correct the id")
                )
            elif rule.status == "active" and known[id].status != "active":
                problem = f"its text names {id}, which is not served ({known[id].status})"
                problems.append(LintProblem.sanitized(file, problem, "name a served rule, or leave it out"))
    return problems


def _fault(
    target: str, rule: Rule, known: Mapping[str, Rule], files: Mapping[tuple[str, str], str]
) -> str | None:
    """Returns the fault of a link, or None. Opens nothing: `files` are those that were read as rules."""
    if target.removeprefix("rules://") in known:
        return None
    if "://" in target or target.startswith("mailto:"):
        try:
            parts = urlsplit(target)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in target
            _ = parts.port
        except ValueError:
            valid = False
        return None if valid else "is not a web address"
    path = target.partition("#")[0]
    if path.endswith(".md"):
        resolved: list[str] = [] if path.startswith("/") else [rule.category]
        for part in path.strip("/").split("/"):
            if part == ".." and resolved:
                resolved.pop()
            elif part not in ("", "."):
                resolved.append(part)
        stem, _, lang = "/".join(resolved).removesuffix(".md").partition(".")
        if any(
            (id, lang) in files for id in (stem.replace("/", "."), path.removesuffix(".md").replace("/", "."))
        ):
            return None
        return "is not a file of the rulebook"
    return "leads nowhere"
