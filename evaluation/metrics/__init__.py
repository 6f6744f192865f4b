"""Rates and differences with intervals, and tests between arms."""

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
    completion_tokens,
    drop_retried_errors,
    duration_seconds,
    is_unjudged,
    mean_change,
    prompt_tokens,
    with_own_decision,
)
from evaluation.metrics.intervals import MIN_PROMPTS, Difference, PromptSums, Rate, wilson
from evaluation.metrics.paired import (
    HIT_AT,
    NO_METADATA,
    PromptMetadata,
    compare_outcomes,
    contrast_score,
    prompt_metadata,
    retrieval_hits,
)

__all__ = [
    "AgreementError",
    "ArmMetrics",
    "BENIGN",
    "Difference",
    "MIN_PROMPTS",
    "HIT_AT",
    "HumanLabel",
    "LabelledAnswer",
    "NO_METADATA",
    "PromptMetadata",
    "PromptSums",
    "Rate",
    "arm_metrics",
    "with_own_decision",
    "mean_change",
    "compare_outcomes",
    "contrast_score",
    "is_unjudged",
    "measure_agreement",
    "prompt_metadata",
    "read_answers",
    "prompt_tokens",
    "retrieval_hits",
    "duration_seconds",
    "wilson",
    "drop_retried_errors",
    "completion_tokens",
]
