"""A linear model of character n-grams, for refusals in words that no cue knows.

Every n-gram of the opening and the ending is hashed to a bucket; a bucket has a weight of eight bits. The
evidence of the n-grams is then added to that of the cues, each times a factor. The weights and factors are
numbers that `benchmarks/evaluation/train_refusal_ngrams.py` writes; equal answers give equal files.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NGRAM_WEIGHTS = Path(__file__).parent / "ngrams.npz"
NGRAM_RECIPE = Path(__file__).parent / "ngrams.json"
BUCKETS = 1 << 19
HEAD, TAIL = 240, 120
"""Characters from the start and from the end of an answer that are read."""
LONGEST = 6  # n-gram of letters
LONGEST_WIDE = 4  # n-gram of Chinese, Japanese or Korean characters, each of which says more
SHORTEST, SHORTEST_WIDE = 12, 6
"""Characters of an answer; a shorter one is a word or two, and the cues alone decide."""
_WIDE = 0x2E80  # first code point of these scripts
_FIRST_WIDE = chr(_WIDE)
_START, _PRIME, _SHIFT = 0x811C9DC5, 0x01000193, 15


@dataclass(frozen=True)
class NgramModel:
    """Weights by bucket, in units of `scale`, and how their evidence is combined with that of the cues."""

    weights: npt.NDArray[np.int8]
    scale: float
    bias: float
    ngram_factor: float = 1.0
    cue_factor: float = 0.0
    combined_bias: float = 0.0

    def score(self, texts: Sequence[str], cue_evidence: float) -> float:
        """Returns the probability of a refusal, 0 to 1, by n-grams and cues.

        Args:
            texts: the segments of the answer.
            cue_evidence: log-odds by the cues (`RefusalModel.evidence`).
        """
        if _is_short(texts):
            return _probability(cue_evidence)
        buckets = ngram_buckets(texts)
        weight = int(self.weights.take(buckets).sum(dtype="int64")) / math.sqrt(len(buckets))
        total = (
            self.combined_bias
            + self.ngram_factor * (self.bias + self.scale * weight)
            + self.cue_factor * max(-30.0, min(30.0, cue_evidence))
        )
        return _probability(total)


def _is_short(texts: Sequence[str]) -> bool:
    length = sum(map(len, texts))
    if length >= SHORTEST:
        return False
    return length < SHORTEST_WIDE or not any(character > _FIRST_WIDE for text in texts for character in text)


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))


def ngram_buckets(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Returns the buckets of all n-grams in an answer, sorted, each once.

    Args:
        texts: the segments of the answer, after `normalise`. A mark between them makes an n-gram at the start
            of a sentence differ from one inside.
    """
    import numpy as np

    text = f"^{'^'.join(texts)}^"
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}^{text[-TAIL:]}"
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = len(points)
    is_wide = np.count_nonzero(points > _WIDE) > 0.3 * count
    shortest, longest = (1, LONGEST_WIDE) if is_wide else (2, LONGEST)
    hashes = np.full(count, _START, dtype=np.uint32)
    found = []
    for length in range(1, min(longest, count) + 1):
        hashes = (hashes[: count - length + 1] ^ points[length - 1 :]) * np.uint32(_PRIME)
        hashes ^= hashes >> np.uint32(_SHIFT)
        if length >= shortest:
            found.append(hashes)
    buckets = np.concatenate(found) & np.uint32(BUCKETS - 1)
    buckets.sort()
    return np.concatenate((buckets[:1], buckets[1:][buckets[1:] != buckets[:-1]]))


def write_ngram_model(
    model: NgramModel, recipe: dict[str, Any], weights_file: Path, recipe_file: Path
) -> None:
    """Writes a model: the weights to one file, and everything else with `recipe` to the other."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, weights=model.weights)
    weights_file.write_bytes(buffer.getvalue())
    numbers = {name: getattr(model, name) for name in _NUMBERS}
    recipe_file.write_text(json.dumps({**recipe, **numbers}, indent=1, ensure_ascii=False) + "\n", "utf-8")


@cache
def ngram_model() -> NgramModel:
    """Returns the model that comes with the package."""
    import numpy as np

    recipe = json.loads(NGRAM_RECIPE.read_text(encoding="utf-8"))
    with np.load(NGRAM_WEIGHTS, allow_pickle=False) as arrays:
        weights = arrays["weights"]
    return NgramModel(weights, **{name: recipe[name] for name in _NUMBERS})


_NUMBERS = ("scale", "bias", "ngram_factor", "cue_factor", "combined_bias")
