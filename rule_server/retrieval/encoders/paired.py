"""Two encoders side by side: the multilingual one for every text, and the English one for English texts.

A vector consists of both encoders' vectors. The part of an encoder that does not know a text's language is
zero, so that the text is similar to nothing.

Rules are always encoded exactly, so that an index does not depend on the machine that built it. Questions
may be encoded with int8 weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from rule_server.retrieval.encoders.multilingual import DIMENSION, MultilingualEncoder
from rule_server.retrieval.encoders.onnx import OnnxEncoder
from rule_server.retrieval.relevance.language import ENGLISH, detect_language, is_known, language_fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.settings import Precision

SEPARATOR = "+"
"""Between the parts of a fingerprint. That of the English encoder comes first and names its folder."""


@lru_cache(maxsize=256)
def _language(text: str) -> str | None:
    """Returns `detect_language`. Both stages ask for it."""
    return detect_language(text)


def split_vectors(vectors: Vectors, fingerprint: str) -> tuple[Vectors | None, Vectors]:
    """Returns the multilingual and the English part of vectors (n, dimension).

    Vectors of a single encoder have no multilingual part.
    """
    if SEPARATOR not in fingerprint:
        return None, vectors
    return vectors[:, :DIMENSION], vectors[:, DIMENSION:]


class PairedEncoder:
    """Encodes texts with both encoders; see the module's docstring."""

    def __init__(
        self,
        multilingual: MultilingualEncoder,
        english: OnnxEncoder,
        open_exact: Callable[[], PairedEncoder] | None = None,
    ) -> None:
        """`open_exact` opens the same encoders in full precision. None: these are the exact ones."""
        self.multilingual, self.english = multilingual, english
        self._open_exact = open_exact
        self.fingerprint = SEPARATOR.join(
            (english.fingerprint, multilingual.fingerprint, language_fingerprint())
        )
        self.dimension = DIMENSION + english.dimension
        self.model, self.prefix = english.model, english.prefix

    @cached_property
    def exact(self) -> PairedEncoder:
        """The same encoders in full precision, opened on first use, because few services need them."""
        return self if self._open_exact is None else self._open_exact()

    @property
    def precision(self) -> Precision:
        """`exact`, or `int8` if these encoders have int8 weights."""
        return "exact" if self._open_exact is None else "int8"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension), float32, both parts of length 1 or 0. Thread-safe."""
        vectors = self.encode_multilingual(texts)
        self.add_english(texts, vectors, range(len(texts)))
        return vectors

    def encode_multilingual(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors whose English part is zero."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), np.float32)
        known = [at for at, text in enumerate(texts) if is_known(_language(text))]
        vectors[known, :DIMENSION] = self.multilingual.encode([texts[at] for at in known])
        return vectors

    def add_english(
        self, texts: Sequence[str], vectors: Vectors, rows: Sequence[int] | NDArray[np.int64]
    ) -> None:
        """Adds the English part of some rows. A text without a recognised language counts as English."""
        english = [int(at) for at in rows if _language(texts[at]) in (ENGLISH, None)]
        if english:
            vectors[english, DIMENSION:] = self.english.encode([texts[at] for at in english])
