"""An encoder that remembers: the same texts are measured again and again while rules are edited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval import Encoder
from rule_server.retrieval.index import text_key

if TYPE_CHECKING:
    from rule_server.retrieval.encoder import Vectors


class CachedEncoder:
    """Vectors from a file where they are known, else from the encoder. The file holds no text"""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint
        self._file = folder / f"vectors-{encoder.fingerprint}.npz"
        self._known: dict[str, Vectors] = {}
        if self._file.is_file():
            with np.load(self._file, allow_pickle=False) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors (len(texts), dimension), float32."""
        keys = [text_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            fresh = self._encoder.encode(list(missing.values()))
            self._known.update(zip(missing, fresh, strict=True))
        return np.stack([self._known[key] for key in keys])

    def save(self) -> None:
        """Keep what is known for the next run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".new.npz")
        np.savez(aside, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        aside.replace(self._file)
