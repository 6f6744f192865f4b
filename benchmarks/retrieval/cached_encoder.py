"""An encoder with a persistent cache, because edits of rules leave most texts unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval import Encoder
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import text_key

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Vectors


class CachedEncoder:
    """Returns cached vectors from a file, and computes the others. The file contains no text."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint
        rounded = isinstance(encoder, PairedEncoder) and encoder.precision == "int8"
        self._file = folder / f"vectors-{encoder.fingerprint}{'-int8' if rounded else ''}.npz"
        self._cache: dict[str, Vectors] = {}
        if self._file.is_file():
            with np.load(self._file, allow_pickle=False) as stored:
                self._cache = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension), float32."""
        keys = [text_key(text) for text in texts]
        for key, text in zip(keys, texts, strict=True):
            if key not in self._cache:
                # In a batch, the last bits of a vector would depend on the other texts that were missing.
                self._cache[key] = self._encoder.encode([text])[0]
        return np.stack([self._cache[key] for key in keys])

    def save(self) -> None:
        """Saves the cache for the next run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".new.npz")
        np.savez(partial, keys=np.array(list(self._cache)), vectors=np.stack(list(self._cache.values())))
        partial.replace(self._file)
