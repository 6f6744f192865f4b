"""Older episode lines brought to the form of this version, one step a version.

A field that is added with a default needs no step. What changes meaning, name or shape gets a new number and
a function that turns a line of the version before into one of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CURRENT_VERSION = 2
"""Version of the lines that are written."""
LATER = "written by a later version of ascl"
"""How the reason begins why a line of a later version is not read."""

Line = dict[str, Any]


def migrate(line: Line) -> Line:
    """A line of any version up to this one in the form of this one; the line given is not changed.

    Raises:
        ValueError: when it is of a later version, or its version is no number.
    """
    version = line.get("schema_version", CURRENT_VERSION)
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"schema_version is {version!r}: the versions are 1 to {CURRENT_VERSION}")
    if version > CURRENT_VERSION:
        raise ValueError(
            f"{LATER} (schema_version {version}, this one reads up to"
            f" {CURRENT_VERSION}): update ascl to read it"
        )
    for number in range(version, CURRENT_VERSION):
        line = {**_STEPS[number](line), "schema_version": number + 1}
    return line


def _says_its_api(line: Line) -> Line:
    """Version 2 says which API was spoken; only the gateway spoke another than Chat Completions before."""
    turns = line.get("turns")
    usages = (
        [turn.get("usage") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    )
    responses = line.get("source") == "gateway" and any(
        isinstance(usage, dict) and "input_tokens" in usage for usage in usages
    )
    return {"api": "responses" if responses else "chat", **line}


_STEPS: dict[int, Callable[[Line], Line]] = {1: _says_its_api}
