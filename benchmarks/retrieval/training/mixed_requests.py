"""English texts made of several of our own requests, some with a delicate one among everyday ones.

A single request is not what a long message looks like: a delicate sentence is a small part of its vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rule_server.retrieval import split_into_windows
from rule_server.retrieval.relevance import delicate_requests, everyday_requests
from rule_server.retrieval.relevance.language import ENGLISH

PAIRS = 200
"""Number of texts with a delicate request, and of texts without one."""
FEWEST, MOST = 2, 5
"""Everyday requests in a text, before it is shortened."""


@dataclass(frozen=True)
class MixedRequest:
    """A text of one window."""

    text: str
    delicate: bool


def mixed_requests() -> list[MixedRequest]:
    """Returns the texts, the same ones every time."""
    random = np.random.default_rng(0)
    everyday = [request.text for request in everyday_requests() if request.lang == ENGLISH]
    delicate = [request.text for request in delicate_requests() if request.lang == ENGLISH]
    mixed: list[MixedRequest] = []
    while len(mixed) < 2 * PAIRS:
        parts = [everyday[at] for at in random.integers(0, len(everyday), random.integers(FEWEST, MOST + 1))]
        mixed.append(MixedRequest(_shortened(parts), delicate=False))
        own = delicate[random.integers(0, len(delicate))]
        place = int(random.integers(0, len(parts) + 1))
        mixed.append(MixedRequest(_shortened([*parts[:place], own, *parts[place:]], own), delicate=True))
    return mixed


def _shortened(parts: Sequence[str], kept: str | None = None) -> str:
    """Returns the parts as one text, without the longest ones if it would not fit into a window."""
    parts = list(parts)
    while len(split_into_windows(text := " ".join(parts))) > 1 and len(parts) > 1:
        parts.remove(max((part for part in parts if part != kept), key=len))
    return text
