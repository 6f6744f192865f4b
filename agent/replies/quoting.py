"""Finds the parts of a text that are quoted: code fences, inline code and quotation marks.

A model that explains tags or calls quotes them; the quoted ones are part of its answer.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_FENCE_LINE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})([^\n`]*)$", re.MULTILINE)
_INLINE_CODE = re.compile(r"``[^\n]{1,400}?``|`[^`\n]{1,400}`")
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "『": "』", "(": ")"}


class Fence(NamedTuple):
    """A closed code fence: where it and its body begin and end, and its info string."""

    start: int
    body: int
    body_end: int
    end: int
    info: str


@dataclass(frozen=True)
class Quoting:
    """The quoted parts of one text."""

    text: str

    @property
    def fences(self) -> list[Fence]:
        """Closed code fences, in order."""
        return self._fences[0]

    @cached_property
    def _fences(self) -> tuple[list[Fence], int]:
        """Closed code fences, and the start of one that is not closed (the text's end without one)."""
        found: list[Fence] = []
        opening: re.Match[str] | None = None
        for line in _FENCE_LINE.finditer(self.text):
            mark, info = line[1], line[2].strip()
            if opening is None:
                opening = line
            elif mark[0] == opening[1][0] and len(mark) >= len(opening[1]) and not info:
                body = min(opening.end() + 1, line.start())
                found.append(Fence(opening.start(), body, line.start(), line.end(), opening[2].strip()))
                opening = None
        return found, opening.start() if opening else len(self.text)

    @cached_property
    def _inline(self) -> tuple[list[int], list[int]]:
        spans = [match.span() for match in _INLINE_CODE.finditer(self.text)]
        return [start for start, _ in spans], [end for _, end in spans]

    @cached_property
    def _fence_starts(self) -> list[int]:
        return [fence.start for fence in self.fences]

    def fence_at(self, position: int) -> Fence | None:
        """Returns the code fence whose body contains a position."""
        index = bisect_right(self._fence_starts, position) - 1
        if index < 0:
            return None
        fence = self.fences[index]
        return fence if fence.body <= position < fence.body_end else None

    def is_fenced(self, position: int) -> bool:
        """Returns whether a position is in a code fence, closed or not."""
        return position > self._fences[1] or self.fence_at(position) is not None

    def is_inline(self, start: int, end: int) -> bool:
        """Returns whether the text from `start` to `end` is inline code or directly in quotation marks."""
        starts, ends = self._inline
        index = bisect_right(starts, start) - 1
        if index >= 0 and end <= ends[index]:
            return True
        closing = _QUOTES.get(self.text[start - 1 : start])
        return closing is not None and self.text[end : end + 1] == closing
