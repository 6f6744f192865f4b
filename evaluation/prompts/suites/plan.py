"""Plan of a run of suites: prompts to fetch, requests to send, and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.prompts.suites.preset import Suite

_PROMPT_TOKENS = 700
"""Estimated tokens of a request: system text, tool and prompt; a consultation adds about as many again."""


@dataclass(frozen=True)
class SuitePlan:
    """The size of one suite in a run. Rows are those published, before any are skipped."""

    suite: Suite
    episodes: int
    most_reply_tokens: int
    """Upper bound: every reply of every turn takes all of its tokens."""
    request_tokens: int
    """Estimate for one request per episode."""

    def as_dict(self) -> dict[str, Any]:
        suite = self.suite
        return {
            "suite": suite.name,
            "purpose": suite.purpose,
            "fetches": [source.label for source in suite.sources],
            "gated": suite.gated,
            "licence": suite.licence,
            "paper": suite.paper,
            "scored_by": list(suite.scored_by),
            "published": [vars(figure) for figure in suite.published],
            "note": suite.note,
            "episodes": self.episodes,
            "most_reply_tokens": self.most_reply_tokens,
            "request_tokens": self.request_tokens,
        }


def plan_suites(
    suites: Sequence[Suite], *, limit: int | None, samples: int, arms: int, turns: int, max_tokens: int
) -> list[SuitePlan]:
    """Returns the size of each suite in a run.

    Args:
        limit: maximum number of prompts of a suite.
        samples: episodes per prompt.
        arms: number of arms.
        turns: maximum model calls per prompt.
        max_tokens: maximum tokens per reply.
    """
    plans = []
    for suite in suites:
        prompts = suite.rows if limit is None else min(limit, suite.rows)
        episodes = prompts * samples * arms
        plans.append(SuitePlan(suite, episodes, episodes * turns * max_tokens, episodes * _PROMPT_TOKENS))
    return plans
