"""The protocols of encoders: texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


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
    """An encoder of two parts, of which the second is only needed for some texts."""

    def encode_multilingual(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension) whose English part is zero. Thread-safe."""
        ...

    def add_english(
        self, texts: Sequence[str], vectors: Vectors, rows: Sequence[int] | NDArray[np.int64]
    ) -> None:
        """Adds the English part to some rows of the vectors of the texts."""
        ...


@runtime_checkable
class RoundedEncoder(Encoder, Protocol):
    """An encoder whose vectors may be rounded, with the exact encoder of the same model."""

    @property
    def exact(self) -> Encoder: ...


def exact_encoder(encoder: Encoder) -> Encoder:
    """Returns the encoder in full precision, which encodes what an index stores."""
    return encoder.exact if isinstance(encoder, RoundedEncoder) else encoder
