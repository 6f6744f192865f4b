"""Every setting as a table, from the code that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from rule_server.settings import TOOL_DESCRIPTION, Settings


@dataclass(frozen=True)
class SettingRow:
    """One setting."""

    variable: str
    default: str
    meaning: str


def setting_rows() -> list[SettingRow]:
    """All settings in the order of the code."""
    return [
        SettingRow(f"ASCL_RULES_{name.upper()}", _default(field), " ".join((field.description or "").split()))
        for name, field in Settings.model_fields.items()
    ]


def markdown_table() -> str:
    """The table as it stands in docs/guides/operators.md."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for row in setting_rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.variable}` | {default} | {row.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=False)
    if field.default_factory is not None:
        return "~/.cache/ascl/rules" if field.annotation is Path else ""
    if value is None or value == () or value == "":
        return ""
    if value == TOOL_DESCRIPTION:
        return "(a text of ours)"
    return str(value).lower() if isinstance(value, bool) else str(value)
