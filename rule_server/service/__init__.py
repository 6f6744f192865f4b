"""Answers consultations: batching, snapshots and live reload."""

from rule_server.service.changes import Changes
from rule_server.service.usage import UsageView

__all__ = ["Changes", "UsageView"]
