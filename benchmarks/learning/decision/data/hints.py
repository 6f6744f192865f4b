"""Hints for the prompts, made once by `held_out_hints` and cached. The cache contains no prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.prompts import Prompt

FILE = "hints.jsonl"


@dataclass(frozen=True)
class Hint:
    """Line that the rule service gives for a prompt, and its decision behind the line."""

    key: str
    """See `key_of`."""
    text: str
    found: bool
    """Whether a rule was found: the service's own decision to consult."""
    score: float
    """Score of the best rule, found or not."""
    decided_by: str
    """`run N`, which left the prompt's source out, or `packaged`."""


def key_of(prompt: Prompt) -> str:
    """Returns the digest of a prompt's id and text."""
    return hashlib.sha256(f"{prompt.id}\n{prompt.prompt}".encode()).hexdigest()[:16]


def write_hints(folder: Path, hints: Sequence[Hint]) -> Path:
    """Writes the hints' file in a folder. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    file.write_text("".join(json.dumps(asdict(hint)) + "\n" for hint in hints), encoding="utf-8")
    return file


class Hints:
    """The cached hints.

    Args:
        folder: folder with the hints' file.

    Raises:
        ValueError: the file is missing.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / FILE
        if not file.is_file():
            raise ValueError(
                f"{file} is missing: make it with `python -m benchmarks.learning.decision.main hints`"
            )
        lines = file.read_text(encoding="utf-8").splitlines()
        self._by_key = {hint.key: hint for hint in (Hint(**json.loads(line)) for line in lines)}

    def of(self, prompt: Prompt) -> Hint:
        """Returns the hint of a prompt. Raises ValueError if there is none."""
        try:
            return self._by_key[key_of(prompt)]
        except KeyError:
            raise ValueError(
                f"there is no hint for the prompt {prompt.id}: make the hints again with "
                "`python -m benchmarks.learning.decision.main hints`"
            ) from None
