"""Template files for a user's own rulebook."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import yaml

from rule_server.errors import StartError
from rule_server.rulebook import Stance
from rule_server.rulebook.model import INVISIBLE
from rule_server.rulebook.parser import CATEGORY_FILE, MANIFEST
from rule_server.settings import packaged_rules

_ID = r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*"

CATEGORY = "house-rules"
RULE = "our-organisation"

_OVERLAY = """\
# This folder extends the rulebook that is packaged with ascl-rules. A file <category>/<rule>.md adds a rule,
# or replaces the one with the same id. Remove the next line to use this folder alone.
extends: ascl-core
# Ids of packaged rules to retire, for example: [fraud.scam-material]
retire: []
"""

_CATEGORY_FILE = """\
---
id: house-rules
title: House rules
summary: What this organisation wants answered in its own way.
mlcommons: []
severity: medium
reviewed: {today}
---
"""

_RULE_FILE = """\
---
id: house-rules.our-organisation
title: Questions about our organisation
stance: answer
applies_when: Someone asks what our organisation does, how to reach it, or what it thinks of a topic.
not_when: A question about organisations in general, or about another one.
owner: policy-team
review_by: {due}
queries:
- what does your company do
- how do I contact your organisation
- what is the position of your organisation on this topic
- who is responsible for your service
- where can I complain about your company
examples:
  benign:
  - How do I reach the people behind this service?
  harmful: []
status: {status}
---

## Fine

Saying what is public about the organisation, and where to reach it.

## Not fine

Speaking for it on matters that it has not published, or inventing facts about it.

## How to answer

Plainly and briefly. Where nothing is published, say so and name the contact page.
"""


_NEW_CATEGORY = """\
---
id: {category}
title: {title}
summary: What this category is about, in a sentence.
mlcommons: []
severity: medium
reviewed: {today}
---
"""

_NEW_RULE = """\
---
id: {id}
title: {title}
stance: {stance}   # answer, limit (answer within limits) or decline
applies_when: Someone asks about {words}.
not_when: Someone asks about something that only sounds like {words}.
owner: policy-team
review_by: {due}
queries:   # 5 to 10 phrasings, as users write them
- questions about {words}
- how does {words} work
- can you help me with {words}
- what should I know about {words}
- I have a problem with {words}
examples:
  benign:
  - What is {words}?
  harmful: []
status: draft   # active: served to models
---

## Fine

Explaining {words}.

## Not fine

Helping to misuse {words}.

## How to answer

Speak plainly about {words}, and say who helps with {words}.
"""


def write_rule(
    folder: Path, id: str, *, stance: str, title: str | None = None, beneath: Sequence[Path] = ()
) -> list[Path]:
    """Writes a draft of a rule, and what it needs: rulebook.yaml and the category file. Overwrites nothing.

    A new rulebook extends the packaged rules. Returns the new files; the rule is the last.

    Args:
        beneath: other rules folders beneath this one, whose categories need no file here.

    Raises:
        StartError: id, stance or title is invalid, the rule exists, or the folder is not writable.
    """
    category, _, name = id.partition(".")
    if not re.fullmatch(_ID, id) or max(len(category), len(name)) > 64:
        raise StartError(
            f"{id[:140]!r} is not the id of a rule: write <category>.<rule> in lowercase letters, digits and "
            "hyphens, such as banking.card-limits"
        )
    if stance not in get_args(Stance):
        raise StartError(f"{stance[:60]!r} is not a stance: choose answer, limit or decline")
    words = name.replace("-", " ")
    shown = " ".join((title or words.capitalize()).split())
    if INVISIBLE.search(shown) or len(shown) > 200:
        raise StartError("the title is too long or contains control characters: use a few words")
    today = datetime.datetime.now(datetime.UTC).date()
    values = {
        "id": id,
        "category": category,
        "words": words,
        "stance": stance,
        "today": today,
        "due": today + datetime.timedelta(days=365),
    }
    rule = folder / category / f"{name}.md"
    files: dict[Path, str] = {}
    if not (folder / MANIFEST).exists():
        files[folder / MANIFEST] = _manifest(_rulebook_name(folder, None), standalone=False)
    if not any((at / category / CATEGORY_FILE).exists() for at in (folder, *beneath, packaged_rules())):
        heading = category.replace("-", " ").capitalize()
        files[folder / category / CATEGORY_FILE] = _NEW_CATEGORY.format(**values, title=heading)
    quoted = json.dumps(shown, ensure_ascii=False) if title else shown  # JSON strings are YAML strings
    files[rule] = _NEW_RULE.format(**values, title=quoted)
    if rule.exists() or rule.is_symlink():
        raise StartError(f"{rule} exists: choose another id, or edit that file")
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise StartError(f"{folder} cannot be written ({error.strerror}): specify another folder") from None
    return list(files)


def write_starter(folder: Path, *, standalone: bool, name: str | None = None) -> list[Path]:
    """Writes a small rulebook that can be served immediately. Returns its files in reading order.

    As a layer over the packaged rules its one rule is a draft, so that nothing changes; alone it is active.

    Raises:
        StartError: the folder is not empty or not writable, or the name is invalid.
    """
    name = _rulebook_name(folder, name)
    today = datetime.datetime.now(datetime.UTC).date()
    due = today + datetime.timedelta(days=365)
    files = {
        MANIFEST: _manifest(name, standalone=standalone),
        f"{CATEGORY}/_category.md": _CATEGORY_FILE.format(today=today),
        f"{CATEGORY}/{RULE}.md": _RULE_FILE.format(due=due, status="active" if standalone else "draft"),
    }
    try:
        if folder.exists() and any(folder.iterdir()):
            raise StartError(f"{folder} is not empty: specify a new folder, so that nothing is overwritten")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartError(
            f"{folder} cannot be written ({error.strerror}): specify a different folder"
        ) from None
    return [folder / path for path in files]


def _rulebook_name(folder: Path, name: str | None) -> str:
    """Returns the name of a rulebook, by default that of its folder. Raises StartError."""
    name = name or re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "my-rules"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise StartError(f"{name!r} is not a rulebook name: use lowercase letters, digits, `.`, `_` and `-`")
    return name


def _manifest(name: str, *, standalone: bool) -> str:
    # safe_dump quotes names such as 2026 or null, which YAML would otherwise read as other types.
    text: str = yaml.safe_dump({"name": name, "version": "0.1.0"}, sort_keys=False)
    return text + ("" if standalone else _OVERLAY)
