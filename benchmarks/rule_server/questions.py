"""Questions of a given length, all different: our rules' own queries, recombined."""

from __future__ import annotations

import random
from collections.abc import Callable

from rule_server.rulebook import Rulebook

TOKENS = 43


def questions(rulebook: Rulebook, count: int, length: Callable[[str], int], seed: int = 0) -> list[str]:
    """`count` texts of 40 to 46 tokens by `length`; the same for the same seed."""
    draw = random.Random(seed)
    phrases = [query for rule in rulebook.served.values() for query in rule.queries]
    found: dict[str, None] = {}
    while len(found) < count:
        text = draw.choice(phrases)
        while length(text) < TOKENS - 3:
            text = f"{text}; {draw.choice(phrases)}"
        words = text.split()
        while length(" ".join(words)) > TOKENS + 3:
            words.pop()
        if length(" ".join(words)) >= TOKENS - 3:
            found[" ".join(words)] = None
    return list(found)
