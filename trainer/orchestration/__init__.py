"""Runs rounds of training (`loop`), and training on several processes or nodes (`launch`).

A name is loaded on first use: every `ascl-train` command calls `exit_with_launcher` at its start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.orchestration.floor import measure
    from trainer.orchestration.launch import (
        Machines,
        estimate_memory,
        format_estimate,
        plan,
        run_plan,
        settings_of_options,
    )
    from trainer.orchestration.loop import run_loop
    from trainer.orchestration.model_server import ServeError, exit_with_launcher, serve_model
    from trainer.orchestration.settings import LoopSettings, read_loop_settings, read_yaml
    from trainer.orchestration.smoke import describe_smoke, write_smoke_config

_HOME = {
    "LoopSettings": "settings",
    "Machines": "launch",
    "ServeError": "model_server",
    "describe_smoke": "smoke",
    "estimate_memory": "launch",
    "exit_with_launcher": "model_server",
    "format_estimate": "launch",
    "measure": "floor",
    "plan": "launch",
    "read_loop_settings": "settings",
    "read_yaml": "settings",
    "run_loop": "loop",
    "run_plan": "launch",
    "serve_model": "model_server",
    "settings_of_options": "launch",
    "write_smoke_config": "smoke",
}
__all__ = [
    "LoopSettings",
    "Machines",
    "ServeError",
    "describe_smoke",
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
    "settings_of_options",
    "write_smoke_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
