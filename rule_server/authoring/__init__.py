"""Tools for rule authors: lint, diff, replay, calibration and usage statistics."""

from rule_server.authoring.calibration import (
    MUST_FIND_KINDS,
    MUST_FIND_NOTHING_KINDS,
    CalibrationReport,
    calibrate,
    plot_curve,
    read_labelled_prompts,
    score_prompts,
    wilson,
)
from rule_server.authoring.diff import ChangedAnswer, RulebookDiff, changed_answers, diff_rulebooks, rule_ids
from rule_server.authoring.questions import BadLine, Question, read_questions
from rule_server.authoring.stats import Usage, summarize_usage
from rule_server.authoring.template import write_starter

__all__ = [
    "BadLine",
    "ChangedAnswer",
    "MUST_FIND_KINDS",
    "MUST_FIND_NOTHING_KINDS",
    "Question",
    "CalibrationReport",
    "RulebookDiff",
    "Usage",
    "calibrate",
    "changed_answers",
    "diff_rulebooks",
    "rule_ids",
    "plot_curve",
    "read_labelled_prompts",
    "read_questions",
    "score_prompts",
    "summarize_usage",
    "wilson",
    "write_starter",
]
