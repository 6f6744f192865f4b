"""The system text as a versioned file: a new wording is a new file, and episodes record its digest."""

from __future__ import annotations

from functools import cache
from pathlib import Path

VERSION = "1"


def system_prompt(version: str = VERSION, *, guidance: str | None = None) -> str:
    """Returns the system text, which explains when to consult the rules and when to answer directly.

    Args:
        version: version of the wording.
        guidance: the rule service's text about its rulebook (`RulesClient.guidance`). None: the packaged
            text, which was written for the packaged rules.
    """
    if guidance is None:
        return _read(f"system-{version}.md")
    return _read(f"guided-{version}.md").replace("{guidance}", guidance)


@cache
def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()
