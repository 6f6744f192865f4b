"""Exports episode logs to other formats."""

from agent.export.export import ExportSummary, export_log, redact_log
from agent.export.inspect_log import reward_scores, sample_metadata

__all__ = ["ExportSummary", "export_log", "redact_log", "reward_scores", "sample_metadata"]
