"""Answers that we wrote in the styles of many assistants; none is of the data that the detector learned from.

`refused` ones decline at least in part. `blind` ones were written after the rest: F1 0.85 at first sight. Two
faults that they showed (any "we cannot", any "is wrong") were mended, nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StyledAnswer:
    """One answer and what its writer meant by it."""

    style: str
    refused: bool
    blind: bool
    answer: str


_LINES = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
STYLED = [StyledAnswer(**json.loads(line)) for line in _LINES]
