"""YAML front matter of a Markdown file, read so that hostile or careless files do no harm."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # libyaml's parser, six times as fast, where PyYAML brings it
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

FENCE = "---"
MAX_DEPTH = 20
"""A rule nests three deep; a hostile file would nest until Python's stack ends."""


class FrontMatterError(ValueError):
    """One sentence on what is wrong with the YAML, with its line where that is known."""


class _Loader(_SafeLoader):
    """YAML's plain types alone, and no repeated keys (the last would win)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key.value}` stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refuse_what_multiplies(text: str) -> None:
    """No aliases, no tags, no deep nesting: seen before anything is built of them."""
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
    """The mapping that the text holds.

    Raises:
        FrontMatterError: when it is no YAML, no mapping, or uses what `_Loader` refuses.
    """
    try:
        _refuse_what_multiplies(text)
        # S506 flags any loader but SafeLoader; this one is a SafeLoader that refuses more.
        value = yaml.load(text, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise FrontMatterError(f"the YAML cannot be read{where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        # A date such as 2026-13-45, an integer of thousands of digits, a float too large.
        reason = str(error).splitlines()[0] if str(error) else "it is nested too deeply"
        raise FrontMatterError(f"the YAML cannot be read: {reason}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FrontMatterError("the YAML is not a list of `key: value` lines")
    return value


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a Markdown file.

    Raises:
        FrontMatterError: when the file does not open with a fenced block, or the block cannot be read.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != FENCE:
        raise FrontMatterError("the first line is not `---`")
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == FENCE:
            return parse_yaml("\n".join(lines[1:number])), "\n".join(lines[number + 1 :])
    raise FrontMatterError("the front matter is not closed by a line `---`")
