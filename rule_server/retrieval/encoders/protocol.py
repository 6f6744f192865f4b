"""The protocols of encoders: texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Rows = Sequence[int] | NDArray[np.int64]
    Flags = NDArray[np.bool_]


class Encoder(Protocol):
    """Turns texts into vectors of length 1, so that a dot product is a cosine."""

    @property
    def fingerprint(self) -> str:
        """Identifier that changes when the same text may get another vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension), float32, in the order of the texts. Thread-safe."""
        ...


@runtime_checkable
class StagedEncoder(Encoder, Protocol):
    """An encoder of several parts, of which the first is needed for every text and the others for some."""

    def encode_multilingual(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of questions whose other parts are zero. Thread-safe."""
        ...

    def complete(self, texts: Sequence[str], vectors: Vectors, english: Rows, other: Rows) -> Flags:
        """Adds the English part to those of some rows that are English, and the part of other languages to
        those of some rows that are in one. Returns which of all texts are English, (texts,)."""
        ...


@runtime_checkable
class RuleEncoder(Encoder, Protocol):
    """An encoder whose vectors of rules' texts have fewer parts than those of questions."""

    def encode_rules(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of rules' texts, (len(texts), dimension), float32. Thread-safe."""
        ...


@runtime_checkable
class RoundedEncoder(Encoder, Protocol):
    """An encoder whose vectors may be rounded, with the exact encoder of the same model."""

    @property
    def exact(self) -> Encoder: ...


def exact_encoder(encoder: Encoder) -> Encoder:
    """Returns the encoder in full precision, which encodes what an index stores."""
    return encoder.exact if isinstance(encoder, RoundedEncoder) else encoder


def encode_rules(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Returns vectors of rules' texts in full precision, as an index stores them."""
    exact = exact_encoder(encoder)
    return exact.encode_rules(texts) if isinstance(exact, RuleEncoder) else exact.encode(texts)
