"""Encoders side by side: a cheap multilingual one for every text, an English one for English texts, and a
larger multilingual one for questions in other languages.

A vector consists of those of the first two; that of a question also has a part of the third. The part of an
encoder that does not read a text is zero, so that the text is similar to nothing.

Rules are always encoded exactly, so that an index does not depend on the machine that built it. Questions
may be encoded with int8 weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from rule_server.retrieval.encoders.e5 import DIMENSION as OTHER_DIMENSION
from rule_server.retrieval.encoders.e5 import E5Encoder
from rule_server.retrieval.encoders.multilingual import DIMENSION, MultilingualEncoder
from rule_server.retrieval.encoders.onnx import OnnxEncoder
from rule_server.retrieval.relevance.language import ENGLISH, detect_language, is_known, language_fingerprint

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Flags, Rows, Vectors
    from rule_server.settings import Precision

SEPARATOR = "+"
"""Between the parts of a fingerprint. That of the English encoder comes first and names its folder."""


@lru_cache(maxsize=256)
def _language(text: str) -> str | None:
    """Returns `detect_language`. Both stages ask for it."""
    return detect_language(text)


def _reads_other(language: str | None) -> bool:
    return language not in (ENGLISH, None) and is_known(language)


def split_vectors(vectors: Vectors, fingerprint: str) -> tuple[Vectors | None, Vectors]:
    """Returns the multilingual and the English part of the vectors of rules, (n, dimension).

    Vectors of a single encoder have no multilingual part.
    """
    if SEPARATOR not in fingerprint:
        return None, vectors
    return vectors[:, :DIMENSION], vectors[:, DIMENSION:]


class PairedEncoder:
    """Encodes texts with these encoders; see the module's docstring."""

    def __init__(
        self,
        multilingual: MultilingualEncoder,
        english: OnnxEncoder,
        other: E5Encoder,
        open_exact: Callable[[], PairedEncoder] | None = None,
    ) -> None:
        """`open_exact` opens the same encoders in full precision. None: these are the exact ones."""
        self.multilingual, self.english, self.other = multilingual, english, other
        self._open_exact = open_exact
        self.fingerprint = SEPARATOR.join(
            (english.fingerprint, multilingual.fingerprint, language_fingerprint())
        )
        self.dimension = DIMENSION + english.dimension
        """Of the vector of a rule's text. That of a question is longer by the part of the third encoder."""
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
        """Returns vectors of questions, float32, every part of length 1 or 0. Thread-safe."""
        vectors = self.encode_multilingual(texts)
        every = range(len(texts))
        self.complete(texts, vectors, every, every)
        return vectors

    def encode_rules(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of rules' texts, (len(texts), dimension)."""
        vectors = self.encode_multilingual(texts)
        self.complete(texts, vectors, range(len(texts)), ())
        return vectors[:, : self.dimension].copy()

    def encode_multilingual(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of questions whose other parts are zero."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension + OTHER_DIMENSION), np.float32)
        known = [at for at, text in enumerate(texts) if is_known(_language(text))]
        vectors[known, :DIMENSION] = self.multilingual.encode([texts[at] for at in known])
        return vectors

    def complete(self, texts: Sequence[str], vectors: Vectors, english: Rows, other: Rows) -> Flags:
        """See `StagedEncoder.complete`. A text without a recognised language counts as English."""
        import numpy as np

        is_english = np.array([_language(text) in (ENGLISH, None) for text in texts], np.bool_)
        rows = [int(at) for at in english if is_english[at]]
        if rows:
            vectors[rows, DIMENSION : self.dimension] = self.english.encode([texts[at] for at in rows])
        rows = [int(at) for at in other if _reads_other(_language(texts[at]))]
        if rows:
            vectors[rows, self.dimension :] = self.other.encode([texts[at] for at in rows])
        return is_english
