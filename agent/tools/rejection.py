"""Distinguishes the two reasons for an error result of the rule tool: invalid arguments, or a failed service.

The model can correct invalid arguments, so it reads the message. A failed service returned no rules, so
`on_rules_error` applies.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_types import CallToolResult

INVALID_ARGUMENTS = "ascl/invalid-arguments"
"""Key in `_meta` of an error result by which `ascl-rules` reports that it rejects the arguments."""
_NAMED_ARGUMENT = re.compile(r"`(\w{1,64})")
"""Start of a message about an argument, as services before `INVALID_ARGUMENTS` write it."""


def rejects_arguments(
    result: CallToolResult, arguments: dict[str, Any], schema: dict[str, Any] | None
) -> bool:
    """Returns whether an error result means that the arguments are invalid.

    Services other than `ascl-rules` do not report this. For those, arguments are invalid if they do not match
    the tool's input schema (None if it was not read).
    """
    if (result.meta or {}).get(INVALID_ARGUMENTS) is True:
        return True
    text = next((part.text for part in result.content if part.type == "text"), "")
    named = _NAMED_ARGUMENT.match(text)
    known = {"situation", *arguments, *((schema or {}).get("properties") or {})}
    return (named is not None and named[1] in known) or not fits_schema(arguments, schema)


def fits_schema(arguments: dict[str, Any], schema: dict[str, Any] | None) -> bool:
    """Returns whether arguments match a JSON schema; True if the schema is missing or invalid."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if schema is None:
        return True
    try:
        kind = validator_for(schema)
        kind.check_schema(schema)
        # The empty registry keeps a `$ref` from being fetched.
        return bool(kind(schema, registry=Registry()).is_valid(arguments))
    except (SchemaError, Unresolvable):
        return True
