"""Rates, differences and tests, each with its interval."""

from evaluation.errors import AgreementError
from evaluation.metrics.agreement import (
    HumanLabel,
    LabelledAnswer,
    measure_agreement,
    read_answers,
)
from evaluation.metrics.arm_metrics import (
    BENIGN,
    ArmMetrics,
    arm_metrics,
    change,
    is_unjudged,
    read_tokens,
    seconds_taken,
    without_retried,
    written_tokens,
)
from evaluation.metrics.intervals import FEWEST_PROMPTS, Difference, PromptSums, Rate, wilson
from evaluation.metrics.paired import (
    HIT_AT,
    NO_NOTES,
    PromptNotes,
    compare_outcomes,
    contrast_score,
    prompt_notes,
    retrieval_hits,
)

__all__ = [
    "AgreementError",
    "ArmMetrics",
    "BENIGN",
    "Difference",
    "FEWEST_PROMPTS",
    "HIT_AT",
    "HumanLabel",
    "LabelledAnswer",
    "NO_NOTES",
    "PromptNotes",
    "PromptSums",
    "Rate",
    "arm_metrics",
    "change",
    "compare_outcomes",
    "contrast_score",
    "is_unjudged",
    "measure_agreement",
    "prompt_notes",
    "read_answers",
    "read_tokens",
    "retrieval_hits",
    "seconds_taken",
    "wilson",
    "without_retried",
    "written_tokens",
]
