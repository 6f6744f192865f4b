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

__all__ = [
    "BatchMeans",
    "FloorMonitor",
    "Notify",
    "SafetyFloor",
    "held_out_problem",
    "make_notifier",
    "notify_from_rank_zero",
    "silence_libraries",
    "step_reporter",
]
