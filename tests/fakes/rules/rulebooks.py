"""Writes small rulebooks to disk.

folder = write_rulebook(tmp_path / "rules", rule("cyber.malware"), rule("cyber.repair", stance="answer"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CATEGORY = {"summary": "Something to be careful with.", "mlcommons": ["S2"], "severity": "high"}


def rule(id: str = "cyber.malware", **changes: Any) -> tuple[str, str]:
    """Returns the path and the text of a rule file.

    `changes` replaces front-matter values (None removes a key). `body` replaces the prose. `lang` makes the
    rule a translation.
    """
    name = id.partition(".")[2].replace("-", " ")
    front: dict[str, Any] = {
        "id": id,
        "title": name.capitalize(),
        "stance": "decline",
        "applies_when": f"Someone asks about {name}.",
        "not_when": f"Someone asks what {name} means.",
        "owner": "policy-team",
        "review_by": "2099-01-01",
        "queries": [
            f"{how} {name}" for how in ("how to do", "help with", "explain", "instructions for", "why")
        ],
        "examples": {"benign": [f"What is {name}?"], "harmful": []},
        "priority": 50,
        "status": "active",
        "tags": [],
        "references": [],
    }
    body = changes.pop("body", None) or prose(
        f"Explaining {name}.", f"Doing {name}.", f"Speak plainly of {name}."
    )
    lang = changes.pop("lang", "")
    front = {key: value for key, value in {**front, **changes}.items() if value is not None}
    path = id.replace(".", "/") + (f".{lang}" if lang else "") + ".md"
    return path, f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body}"


def prose(fine: str, not_fine: str, how: str) -> str:
    """Returns the three sections of a rule as Markdown."""
    return f"## Fine\n\n{fine}\n\n## Not fine\n\n{not_fine}\n\n## How to answer\n\n{how}\n"


def write_rulebook(folder: Path, *rules: tuple[str, str], name: str = "test-rules") -> Path:
    """Writes the rule files, a file for each of their categories, and a manifest. Returns the folder."""
    for path, text in rules:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        id = file.parent.name
        head = {"id": id, "title": id.capitalize(), **CATEGORY, "reviewed": "2026-06-01"}
        (file.parent / "_category.md").write_text(f"---\n{yaml.safe_dump(head)}---\n", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rulebook.yaml").write_text(f"name: {name}\nversion: 1.0.0\n", encoding="utf-8")
    return folder
