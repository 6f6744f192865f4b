"""Child processes and atomic file writes."""

from evaluation.errors import StartError
from evaluation.runtime.files import cache_folder, named_input, write_atomic
from evaluation.runtime.process import DIE_WITH_PARENT, ReadinessCheck, run_server
from evaluation.runtime.rule_service import PACKAGED_RULES, run_rule_service, wait_for_digest

__all__ = [
    "DIE_WITH_PARENT",
    "PACKAGED_RULES",
    "ReadinessCheck",
    "StartError",
    "cache_folder",
    "named_input",
    "run_rule_service",
    "run_server",
    "wait_for_digest",
    "write_atomic",
]
