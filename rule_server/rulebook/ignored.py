"""Names in a rules folder that belong to no rule: neither read nor followed."""

from __future__ import annotations


def is_ignored(name: str) -> bool:
    """Returns whether a file or folder of this name is never part of a rulebook."""
    return name.startswith(".") or name.endswith("~") or name == "__pycache__"
