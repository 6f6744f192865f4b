"""YAML front matter of a Markdown file, read so that hostile or careless files do no harm."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

FENCE = "---"
MAX_DEPTH = 20
"""A rule nests three deep; a hostile file would nest until Python's stack ends."""


class FrontMatterError(ValueError):
    """One sentence on what is wrong with the YAML, with its line where that is known."""


class _Loader(yaml.SafeLoader):
    """YAML's plain types alone: no tags, no aliases (they multiply), no repeated keys (the last wins)."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.constructor.ConstructorError(None, None, "an alias is not allowed", mark)
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            mark = self.get_mark()
            raise yaml.constructor.ConstructorError(None, None, "a tag is not allowed", mark)
        if self._depth >= MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, "it is nested too deeply", self.get_mark())
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

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


def parse_yaml(text: str) -> dict[str, Any]:
    """The mapping that the text holds.

    Raises:
        FrontMatterError: when it is no YAML, no mapping, or uses what `_Loader` refuses.
    """
    try:
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
