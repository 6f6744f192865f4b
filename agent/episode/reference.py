"""The reference of the episode log, written from its schema.

python -m agent.episode.reference > docs/reference/episode.md
"""

from __future__ import annotations

import sys
import types
import typing

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.episode.schema import Consultation, Episode, ErrorRecord, Limits, RuleHit, Turn

RECORDS: tuple[type[BaseModel], ...] = (Episode, Turn, Consultation, RuleHit, Limits, ErrorRecord)


def episode_reference() -> str:
    """The page, in Markdown."""
    parts = [
        "# The episode log",
        "",
        "JSON Lines, one episode a line. Lines of earlier versions are brought to this form when they are",
        "read; fields that a version does not know are kept when it writes a line back.",
        "",
        "Written by `python -m agent.episode.reference`.",
    ]
    for record in RECORDS:
        parts += ["", f"## {record.__name__}", "", f"{(record.__doc__ or '').strip()}", ""]
        parts += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in record.model_fields.items():
            meaning = " ".join((field.description or "").split())
            parts.append(f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(meaning)} |")
    return "\n".join(parts) + "\n"


def _type(field: FieldInfo) -> str:
    return f"`{_cell(_written(field.annotation))}`"


def _written(annotation: object) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if annotation is typing.Any:
        return "any"
    if origin is typing.Annotated:
        return _written(inside[0])
    if origin is typing.Literal:
        return " | ".join(f'"{value}"' for value in inside)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_written(each) for each in inside)
    if origin is list:
        return f"[{_written(inside[0])}]"
    if origin is dict or annotation is dict:
        return "object"
    names = {str: "text", float: "number", int: "integer", bool: "true or false"}
    if isinstance(annotation, type):
        return names.get(annotation, annotation.__name__)
    return str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "empty" if field.default_factory in (list, dict) else "its defaults"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    value = "null" if field.default is None else str(field.default)
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(episode_reference())
