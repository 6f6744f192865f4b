"""Safety floor of an on-policy run: checks the consult rate of every evaluation on held-out prompts.

The safety multiplier, if there is one, follows the same evaluations.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trainer.errors import TrainingError
from trainer.stages.monitoring import FloorMonitor, Notify, SafetyFloor

METRIC = "eval_ifpo/consult_rate/harmful"
_WATCHED = {"consult": METRIC, "safe": "eval_ifpo/safe_rate"}
"""Metric that the safety multiplier follows, by `harmful_floor_rate`."""


class OnlineFloor(TrainerCallback):  # type: ignore[misc]
    """Saves the weights after every good evaluation; below the floor, restores the last good ones and stops.

    The first evaluation takes place before the first update (`eval_on_start`).

    Raises:
        TrainingError: the first evaluation is below the floor, so no good weights exist to restore.
    """

    def __init__(self, floor: SafetyFloor, trainer: Any, notify: Notify) -> None:
        self.monitor = FloorMonitor(floor, notify)
        self._trainer = trainer
        self._resumed_at = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._resumed_at = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        rate = (metrics or {}).get(METRIC)
        # The interrupted run has already counted an evaluation at the step of its checkpoint.
        is_repeated = bool(state.global_step) and state.global_step == self._resumed_at
        if (multiplier := self._trainer.multiplier) is not None and not is_repeated:
            multiplier.update(state, (metrics or {}).get(_WATCHED[multiplier.watched]))
        if self.monitor.floor.consult is None or rate is None:
            return
        violation = self.monitor.check(self._trainer.model, state.global_step, rate)
        if violation is None:
            return
        if self.monitor.good_step is None:
            start = "another checkpoint (remove the last one)" if state.global_step else "another model"
            raise TrainingError(
                f"before the first update of this run, at step {state.global_step}, {violation}: start from "
                f"{start}, or lower floor_consult"
            )
        self.monitor.stop(self._trainer.model, state.global_step, violation, control)
