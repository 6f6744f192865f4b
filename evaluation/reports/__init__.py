"""Builds reports from named episode logs, and compares them."""

from evaluation.errors import ArmError, ComparisonError
from evaluation.reports.arm_log import MAX_NAME, iter_episodes, load_arm, parse_arm, read_episodes
from evaluation.reports.compare import compare_reports, read_summary
from evaluation.reports.conversations import conversation_summary
from evaluation.reports.figures import COLOURS, MARKERS
from evaluation.reports.render import comparison_table, markdown_table, write_report
from evaluation.reports.summary import build_summary

__all__ = [
    "ArmError",
    "COLOURS",
    "ComparisonError",
    "MARKERS",
    "MAX_NAME",
    "build_summary",
    "compare_reports",
    "conversation_summary",
    "comparison_table",
    "iter_episodes",
    "load_arm",
    "markdown_table",
    "parse_arm",
    "read_episodes",
    "read_summary",
    "write_report",
]
