"""Scores answers: refusal, correctness, judges and the composed reward."""

from evaluation.errors import LabelError, RewardError
from evaluation.scorers.labels import read_labels
from evaluation.scorers.rewards import (
    Reward,
    RewardCounts,
    Weights,
    excluded_by_cause,
    format_faults,
    read_rewards,
    score_episode,
    score_log,
    write_rewards,
)
from evaluation.scorers.text import final_text, models_that_open_in_reasoning, visible_answer

__all__ = [
    "LabelError",
    "Reward",
    "RewardCounts",
    "RewardError",
    "Weights",
    "excluded_by_cause",
    "final_text",
    "format_faults",
    "models_that_open_in_reasoning",
    "read_labels",
    "read_rewards",
    "score_episode",
    "score_log",
    "visible_answer",
    "write_rewards",
]
