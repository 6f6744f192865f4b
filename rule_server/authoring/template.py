"""Template files for a user's own rulebook."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import yaml

from rule_server.errors import StartError

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


def write_starter(folder: Path, *, standalone: bool, name: str | None = None) -> list[Path]:
    """Writes a small rulebook that can be served immediately. Returns its files in reading order.

    As a layer over the packaged rules its one rule is a draft, so that nothing changes; alone it is active.

    Raises:
        StartError: the folder is not empty or not writable, or the name is invalid.
    """
    name = name or re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "my-rules"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise StartError(f"{name!r} is not a rulebook name: use lowercase letters, digits, `.`, `_` and `-`")
    today = datetime.datetime.now(datetime.UTC).date()
    due = today + datetime.timedelta(days=365)
    files = {
        # safe_dump quotes names such as 2026 or null, which YAML would otherwise read as other types.
        "rulebook.yaml": yaml.safe_dump({"name": name, "version": "0.1.0"}, sort_keys=False)
        + ("" if standalone else _OVERLAY),
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
