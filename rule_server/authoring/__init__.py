"""Tools for rule authors: lint, diff, replay, calibration and usage statistics."""

from rule_server.authoring.calibration import (
    KINDS_THAT_FIND,
    KINDS_THAT_FIND_NOTHING,
    Report,
    calibrate,
    plot,
    read_labelled,
    score_all,
    wilson,
)
from rule_server.authoring.diff import ChangedAnswer, RulebookDiff, changed_answers, diff_rulebooks, ids
from rule_server.authoring.questions import BadLine, Question, read_questions
from rule_server.authoring.stats import Usage, summarize_usage
from rule_server.authoring.template import write_starter

__all__ = [
    "BadLine",
    "ChangedAnswer",
    "KINDS_THAT_FIND",
    "KINDS_THAT_FIND_NOTHING",
    "Question",
    "Report",
    "RulebookDiff",
    "Usage",
    "calibrate",
    "changed_answers",
    "diff_rulebooks",
    "ids",
    "plot",
    "read_labelled",
    "read_questions",
    "score_all",
    "summarize_usage",
    "wilson",
    "write_starter",
]
