"""Splits texts into the pieces of multilingual-e5-small: the most likely SentencePiece unigrams.

`tokenizers` needs two seconds and 200 MB to load these 250,000 pieces, and saves at most a millisecond of the
tens that a question takes here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

_SPACE = "\u2581"
_SPACES = re.compile(" {2,}")
UNKNOWN_PENALTY = 10.0
"""How much less likely than the rarest piece an unknown character is, in log-probability (as in
SentencePiece)."""


class E5Tokenizer:
    """Returns the ids of a text's pieces. Thread-safe."""

    def __init__(
        self, pieces: Sequence[str], scores: Sequence[float], characters: Mapping[int, str], unknown: int
    ) -> None:
        """`characters` replaces characters before a text is split. Pieces with the score -inf are unused."""
        self._ids = {piece: at for at, piece in enumerate(pieces) if scores[at] > -math.inf}
        self._scores, self._characters, self._unknown = scores, characters, unknown
        self._unknown_score = min(score for score in scores if score > -math.inf) - UNKNOWN_PENALTY
        self._longest: dict[str, int] = {}
        for piece in self._ids:
            if piece and len(piece) > self._longest.get(piece[0], 0):
                self._longest[piece[0]] = len(piece)

    def ids(self, text: str) -> list[int]:
        """Returns the ids of the most likely pieces of a text, without those of its start and end."""
        plain = _SPACES.sub(" ", text.translate(self._characters)).strip(" ")
        marked = _SPACE + plain.replace(" ", _SPACE)
        size = len(marked)
        best = [-math.inf] * (size + 1)
        best[0] = 0.0
        chosen = [(0, self._unknown)] * (size + 1)
        ids, scores = self._ids, self._scores
        for start in range(size):
            so_far = best[start]
            for end in range(start + 1, min(start + self._longest.get(marked[start], 0), size) + 1):
                piece = ids.get(marked[start:end])
                if piece is not None and so_far + scores[piece] > best[end]:
                    best[end], chosen[end] = so_far + scores[piece], (start, piece)
            if so_far + self._unknown_score > best[start + 1]:
                best[start + 1], chosen[start + 1] = so_far + self._unknown_score, (start, self._unknown)
        found = []
        at = size
        while at:
            at, piece = chosen[at]
            found.append(piece)
        return found[::-1]
