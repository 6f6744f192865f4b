"""Generates distinct questions of a given length by recombining the queries of the rules."""

from __future__ import annotations

import random
from collections.abc import Callable

from rule_server.rulebook import Rulebook

TARGET_TOKENS = 43


def generate_questions(
    rulebook: Rulebook, count: int, length: Callable[[str], int], seed: int = 0
) -> list[str]:
    """Returns `count` texts of 40 to 46 tokens, measured by `length`; deterministic for a seed."""
    rng = random.Random(seed)
    phrases = [query for rule in rulebook.served.values() for query in rule.queries]
    questions: dict[str, None] = {}
    while len(questions) < count:
        text = rng.choice(phrases)
        while length(text) < TARGET_TOKENS - 3:
            text = f"{text}; {rng.choice(phrases)}"
        words = text.split()
        while length(" ".join(words)) > TARGET_TOKENS + 3:
            words.pop()
        if length(" ".join(words)) >= TARGET_TOKENS - 3:
            questions[" ".join(words)] = None
    return list(questions)
