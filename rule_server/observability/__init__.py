"""Audit log, metrics, traces and access logs."""

from rule_server.observability.audit import AuditLog
from rule_server.observability.context import CURRENT_CALLER
from rule_server.observability.logs import log_access, now, set_up_logs
from rule_server.observability.tracing import Tracing, describe_answer, describe_request, start_tracing

__all__ = [
    "AuditLog",
    "CURRENT_CALLER",
    "Tracing",
    "describe_answer",
    "describe_request",
    "log_access",
    "now",
    "set_up_logs",
    "start_tracing",
]
