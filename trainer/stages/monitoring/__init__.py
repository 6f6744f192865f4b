"""Monitoring of a run: progress reports and the safety floor."""

from trainer.stages.monitoring.batch_means import BatchMeans
from trainer.stages.monitoring.progress import (
    Notify,
    make_notifier,
    notify_from_rank_zero,
    silence_libraries,
    step_reporter,
)
from trainer.stages.monitoring.safety_floor import FloorMonitor, SafetyFloor, held_out_problem
from trainer.stages.monitoring.safety_multiplier import METRIC as MULTIPLIER_METRIC
from trainer.stages.monitoring.safety_multiplier import SafetyMultiplier

__all__ = [
    "MULTIPLIER_METRIC",
    "BatchMeans",
    "FloorMonitor",
    "Notify",
    "SafetyFloor",
    "SafetyMultiplier",
    "held_out_problem",
    "make_notifier",
    "notify_from_rank_zero",
    "silence_libraries",
    "step_reporter",
]
