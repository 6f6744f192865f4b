"""Suites by name: presets for the data sets that the field reports on, fetched from the Hugging Face hub."""

from evaluation.prompts.suites.fetch import suite_file
from evaluation.prompts.suites.plan import SuitePlan, plan_suites
from evaluation.prompts.suites.preset import PublishedFigure, Source, Suite
from evaluation.prompts.suites.registry import GROUPS, LEFT_OUT, SUITES, find_suites

__all__ = [
    "GROUPS",
    "LEFT_OUT",
    "SUITES",
    "PublishedFigure",
    "Source",
    "Suite",
    "SuitePlan",
    "find_suites",
    "plan_suites",
    "suite_file",
]
