"""An episode log in the forms that other tools read."""

from agent.export.export import Exported, export_log, redact_log
from agent.export.inspect_log import sample_metadata, scores_of

__all__ = ["Exported", "export_log", "redact_log", "sample_metadata", "scores_of"]
