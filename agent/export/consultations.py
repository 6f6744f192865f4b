"""Exports consultations, one per line, in the format that `ascl-rules stats`, `diff` and `calibrate` read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agent.episode import Episode


def consultation_rows(episodes: Iterable[Episode]) -> Iterator[dict[str, Any]]:
    """Yields a row for each consultation that the rule service answered, in the order of the log."""
    for episode in episodes:
        for consultation in episode.consultations:
            if consultation.verdict is None or consultation.situation is None:
                continue
            yield {
                "situation": consultation.situation,
                "prompt_id": episode.prompt_id,
                "kind": episode.kind,
                "verdict": consultation.verdict,
                "rules": [rule.id for rule in consultation.rules],
                "digest": consultation.digest,
            }
