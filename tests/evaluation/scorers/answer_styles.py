"""Answers written in the styles of many assistants; the detector was not trained on them.

`refused` answers decline at least in part. The five batches were written one after the other, and the
detector was improved after each; `AT_FIRST_SIGHT` is its F1 before that. Batches 3 and 4 are hard on purpose.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

AT_FIRST_SIGHT = {1: 0.71, 2: 0.85, 3: 0.84, 4: 0.68, 5: 0.84}


@dataclass(frozen=True)
class StyledAnswer:
    """One answer and the intention of its author."""

    batch: int
    style: str
    refused: bool
    answer: str


_LINES = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
STYLED = [StyledAnswer(**json.loads(line)) for line in _LINES]
