"""Checks a setup by a short run of a stage, with all its processes and services."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError

STEPS = 2
# With two steps, the sampler must have received weights that were updated. The batch is the smallest in which
# every process has the two samples of a group.
_TINY = {"max_steps": STEPS, "logging_steps": 1, "save_strategy": "no"}
_TINY_BATCH = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "num_generations": 2,
    "max_completion_length": 64,
}
_LEFT_OUT = ("generation_batch_size", "eval_strategy", "eval_steps", "num_train_epochs", "warmup_steps")


def smoke_settings(stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a short run: two steps, and for `online` tiny batches and replies, no floor."""
    kept = {
        name: value
        for name, value in settings.items()
        if not name.startswith("floor_") and name not in (*_LEFT_OUT, "resume", "on_floor")
    }
    return kept | _TINY | (_TINY_BATCH if stage == "online" else {})


def write_smoke_config(stage: str, settings: dict[str, Any], out: Path) -> Path:
    """Writes the settings file of a short run into the run's folder, and returns its path."""
    import yaml

    config = out / "smoke.yaml"
    text = yaml.safe_dump(smoke_settings(stage, settings), sort_keys=False)
    write_atomic(config, text, private=False)
    return config


def describe_smoke(out: Path, processes: int, sampler_log: Path | None) -> str:
    """Describes the result of a short run.

    Args:
        out: folder of the short run.
        sampler_log: output of the vLLM server; None if it was not started here.

    Raises:
        TrainingError: the run made too few steps, or the sampler received no weights.
    """
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    steps = len(record["steps"])
    if steps < STEPS:
        raise TrainingError(
            f"the smoke run made {steps} of {STEPS} steps: {record.get('stopped') or 'see above'}"
        )
    sentence = f"smoke run: {steps} steps with {processes} trainer processes in {record['seconds']:.0f} s"
    if sampler_log is not None:
        updates = len(re.findall(r"POST /update_weights\S* HTTP/\S+\"? 200", _read(sampler_log)))
        if updates < STEPS:
            raise TrainingError(
                f"the smoke run finished, but {sampler_log} shows {updates} weight updates, not {STEPS}: "
                "the sampler may not follow the training. Look for errors there"
            )
        sentence += f", and vLLM took the weights {updates} times"
    unscored = [step["ifpo/unscored"] for step in record["steps"] if step.get("ifpo/unscored") is not None]
    if unscored and max(unscored) > 0:
        sentence += f"; up to {max(unscored):.0%} of a batch had no reward: check the judge"
    return sentence + ". Lengths were tiny, so this shows nothing about memory"


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
