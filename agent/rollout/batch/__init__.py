"""Samples many prompts into one log, and resumes an interrupted run."""

from agent.rollout.batch.resume import check_log_settings
from agent.rollout.batch.run import RunSummary, run_prompts

__all__ = ["RunSummary", "check_log_settings", "run_prompts"]
