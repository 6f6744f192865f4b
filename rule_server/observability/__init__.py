"""Audit log, metrics, traces and access logs."""

from rule_server.observability.audit import AuditLog
from rule_server.observability.context import CURRENT_CALLER, LOCAL_CALLER
from rule_server.observability.logs import log_access, now, set_up_logs
from rule_server.observability.tracing import (
    Tracing,
    describe_request,
    describe_response,
    start_tracing,
)

__all__ = [
    "AuditLog",
    "CURRENT_CALLER",
    "LOCAL_CALLER",
    "Tracing",
    "describe_request",
    "describe_response",
    "log_access",
    "now",
    "set_up_logs",
    "start_tracing",
]
