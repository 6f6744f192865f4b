"""Runs rounds of training (`loop`), and training on several processes or nodes (`launch`)."""

from trainer.orchestration.floor import measure
from trainer.orchestration.launch import Machines, estimate_memory, format_estimate, plan, run_plan
from trainer.orchestration.loop import run_loop
from trainer.orchestration.model_server import ServeError, exit_with_launcher, serve_model
from trainer.orchestration.settings import LoopSettings, read_loop_settings, read_yaml

__all__ = [
    "LoopSettings",
    "Machines",
    "ServeError",
    "estimate_memory",
    "exit_with_launcher",
    "format_estimate",
    "measure",
    "plan",
    "read_loop_settings",
    "read_yaml",
    "run_loop",
    "run_plan",
    "serve_model",
]
