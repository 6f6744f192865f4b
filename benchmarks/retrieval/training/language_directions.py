"""The directions in which vectors of the encoder of other languages differ by language alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.cached_encoder import CachedEncoder
from rule_server.retrieval.relevance import everyday_requests

if TYPE_CHECKING:
    from numpy.typing import NDArray

OTHER_SCALE = 2.0
"""Factor of vectors by the encoder of other languages, so that they vary as much as others."""
MIN_REQUESTS = 20
"""Everyday requests in a language from which its direction is known."""


def language_projection(other: CachedEncoder) -> NDArray[np.float64]:
    """Returns `OTHER_SCALE` times a projection that removes directions in which languages differ, (d, d).

    They are those of the mean vectors of our everyday requests in each language.
    """
    by_language: dict[str, list[str]] = {}
    for request in everyday_requests():
        by_language.setdefault(request.lang, []).append(request.text)
    known = [texts for _, texts in sorted(by_language.items()) if len(texts) >= MIN_REQUESTS]
    means = np.stack([other.encode(texts).astype(np.float64).mean(axis=0) for texts in known])
    _, _, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    directions = directions[: len(known) - 1]
    return np.asarray(OTHER_SCALE * (np.eye(means.shape[1]) - directions.T @ directions))
