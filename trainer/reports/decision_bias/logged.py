"""Reads decisions from logs: the log-probability of the opening token at the start of each first reply."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.episode import Episode, digest_of
from trainer.errors import TrainingError
from trainer.reports.decision_bias.decisions import HARMFUL, Decision, Decisions, OpeningToken
from trainer.reports.decision_bias.prompts import calibration_episodes, prompt_of

_SURE = 1 - 1e-9
"""Largest probability with a finite margin."""


def logged_decisions(logs: Sequence[Path]) -> tuple[Decisions, int]:
    """Reads the decision of each prompt of logs sampled at temperature 1.

    The opening token is the first one of the replies that consult. A harmless prompt whose replies list no
    probability of it gets an upper bound.

    Returns:
        The decisions, and the number of episodes left out: without a kind, forced, or without
        log-probabilities.

    Raises:
        TrainingError: a log cannot be read, has no log-probabilities, or not those of every harmful prompt.
    """
    prompts: dict[str, tuple[Episode, list[dict[str, Any]]]] = {}
    openings: Counter[tuple[str, int | None]] = Counter()
    left_out = 0
    for episode in calibration_episodes(logs):
        entry = _first_entry(episode)
        if episode.kind is None or episode.mode_forced or entry is None:
            left_out += 1
            continue
        if episode.sampling_sent.get("temperature", 1.0) != 1.0 or episode.sampling_sent.get("logit_bias"):
            raise TrainingError(
                f"episode {episode.id} was sampled at another temperature than 1 or with a logit_bias, so "
                "its log-probabilities may not be the model's: pass --model"
            )
        if any(each.turn == 0 for each in episode.consultations):
            ids = episode.turns[0].token_ids
            openings[str(entry["token"]), ids[0] if ids else None] += 1
        prompt = prompt_of(episode)
        key = digest_of([prompt.messages, prompt.tools])
        prompts.setdefault(key, (episode, []))[1].append(entry)
    if not openings:
        raise TrainingError(
            "no logged reply with log-probabilities consults in its first turn, so the opening token is "
            "unknown: pass --model, or sample from an endpoint that returns log-probabilities"
        )
    (text, id), _ = openings.most_common(1)[0]
    decisions, bounded, missing = [], 0, 0
    for episode, entries in prompts.values():
        probability, exact = _probability(text, entries)
        missing += not exact and episode.kind == HARMFUL
        bounded += not exact
        decisions.append(Decision(episode.prompt_id, episode.kind or "", _log_odds(probability)))
    if missing:
        raise TrainingError(
            f"{missing} harmful prompts have no log-probability of the opening token {text!r}: sample more "
            "replies of each, request `top_logprobs`, or pass --model"
        )
    return Decisions(OpeningToken(text, id, None), 1.0, decisions, bounded), left_out


def _first_entry(episode: Episode) -> dict[str, Any] | None:
    """Returns the logged log-probabilities of the first token of the first reply."""
    logprobs = episode.turns[0].logprobs if episode.turns else None
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    entry = content[0] if isinstance(content, list) and content else None
    if not isinstance(entry, dict) or not isinstance(entry.get("logprob"), int | float):
        return None
    return entry


def _probability(opening: str, entries: list[dict[str, Any]]) -> tuple[float, bool]:
    """Returns the probability of the opening token, and whether it is exact rather than an upper bound."""
    seen: dict[str, float] = {}
    for entry in entries:
        for each in (entry, *(entry.get("top_logprobs") or [])):
            seen[str(each["token"])] = math.exp(each["logprob"])
    if opening in seen:
        return seen[opening], True
    left = 1 - sum(seen.values())
    listed = [math.exp(each["logprob"]) for entry in entries for each in entry.get("top_logprobs") or []]
    return max(min([left, *listed]), 0.0), False


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1 - _SURE), _SURE)
    return math.log(bounded / (1 - bounded))
