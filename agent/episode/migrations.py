"""Upgrades older episode lines to the current schema version, one step per version.

A new field with a default needs no step. A change of meaning, name or shape gets a new version number and a
function that upgrades a line of the previous version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CURRENT_VERSION = 2
"""Version of the lines that are written."""
NEWER_VERSION_REASON = "written by a later version of ascl"
"""Beginning of the reason why a line of a later version is skipped."""

Line = dict[str, Any]


def migrate(line: Line) -> Line:
    """Returns a line of any known version as a line of the current version; does not change its argument.

    Raises:
        ValueError: if the version is later than the current one, or not a number.
    """
    version = line.get("schema_version", CURRENT_VERSION)
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"schema_version is {version!r}: the versions are 1 to {CURRENT_VERSION}")
    if version > CURRENT_VERSION:
        raise ValueError(
            f"{NEWER_VERSION_REASON} (schema_version {version}, this one reads up to"
            f" {CURRENT_VERSION}): update ascl to read it"
        )
    for number in range(version, CURRENT_VERSION):
        line = {**_STEPS[number](line), "schema_version": number + 1}
    return line


def _add_api(line: Line) -> Line:
    """Version 2 records the API. In version 1, only gateway episodes could use the Responses API."""
    turns = line.get("turns")
    usages = (
        [turn.get("usage") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    )
    responses = line.get("source") == "gateway" and any(
        isinstance(usage, dict) and "input_tokens" in usage for usage in usages
    )
    return {"api": "responses" if responses else "chat", **line}


_STEPS: dict[int, Callable[[Line], Line]] = {1: _add_api}
