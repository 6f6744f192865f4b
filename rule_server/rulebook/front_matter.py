"""Parses the YAML front matter of a Markdown file, safely for hostile or careless files."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # libyaml's parser, six times as fast, where PyYAML includes it
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

FENCE = "---"
MAX_DEPTH = 20
"""A rule nests three levels deep; a hostile file would nest until the stack overflows."""


class FrontMatterError(ValueError):
    """The YAML is invalid. The message is one sentence, with the line number where it is known."""

    def __init__(
        self, message: str, reason: str | None = None, line: int | None = None, start: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """The parser's reason; None: the message is the reason."""
        self.line = line
        """Index of the line at which the parser stopped; None: unknown."""
        self.start = line if start is None else start
        """Index of the line at which the faulty text begins."""


class YamlLoader(_SafeLoader):
    """Allows only plain YAML types, and rejects repeated keys (the last would win)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key.value}` occurs twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _reject_unsafe(text: str) -> None:
    """Rejects aliases, tags and deep nesting before any value is constructed."""
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        fault = None
        if isinstance(event, yaml.AliasEvent):
            fault = "an alias is not allowed"
        elif getattr(event, "tag", None) is not None:
            fault = "a tag is not allowed"
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            fault = "it is nested too deeply" if depth > MAX_DEPTH else None
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if fault is not None:
            raise yaml.constructor.ConstructorError(None, None, fault, event.start_mark)  # type: ignore[arg-type]


def parse_yaml(text: str) -> dict[str, Any]:
    """Parses a YAML mapping.

    Raises:
        FrontMatterError: the text is not YAML or not a mapping, or uses a rejected feature.
    """
    try:
        _reject_unsafe(text)
        # S506 flags any loader except SafeLoader; this one is a stricter SafeLoader.
        value = yaml.load(text, YamlLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        reason = error.problem or error.context or "it is not valid YAML"
        # An open quote is noticed at the end of the text, and a missing colon one line too late.
        scanning = error.context_mark if "scanning" in (error.context or "") else None
        raise FrontMatterError(
            f"the YAML cannot be read{where}: {reason}",
            reason,
            mark.line if mark else None,
            scanning.line if scanning else None,
        ) from None
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        # A date such as 2026-13-45, an integer of thousands of digits, a float too large.
        reason = str(error).splitlines()[0] if str(error) else "it is nested too deeply"
        raise FrontMatterError(f"the YAML cannot be read: {reason}", reason) from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FrontMatterError("the YAML is not a list of `key: value` lines")
    return value


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Splits a Markdown file into its parsed front matter and its body.

    Raises:
        FrontMatterError: the file does not begin with a fenced block, or the block cannot be parsed.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != FENCE:
        raise FrontMatterError("the first line is not `---`")
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == FENCE:
            return parse_yaml("\n".join(lines[1:number])), "\n".join(lines[number + 1 :])
    raise FrontMatterError("the front matter is not closed by a line `---`")
