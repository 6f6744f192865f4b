"""A floor under the consult rate on harmful prompts that an on-policy run does not train on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from trainer.errors import TrainingError

METRIC = "eval_ifpo/consult_rate/harmful"


class OnlineFloor(TrainerCallback):  # type: ignore[misc]
    """After every evaluation: keep the weights, or below the floor take the last good ones back and stop.

    The first evaluation stands before the first update (`eval_on_start`).

    Raises:
        TrainingError: it is below the floor already, so there are no good weights to end with.
    """

    def __init__(self, least: float | None, trainer: Any, say: Callable[[str], None]) -> None:
        self.stopped: str | None = None
        self._least, self._trainer, self._say = least, trainer, say
        self._good: tuple[int, dict[str, torch.Tensor]] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        rate = (metrics or {}).get(METRIC)
        if self._least is None or rate is None:
            return
        trained = {n: p for n, p in self._trainer.model.named_parameters() if p.requires_grad}
        if rate >= self._least:
            self._good = state.global_step, {n: p.detach().clone() for n, p in trained.items()}
            return
        broken = (
            "on harmful prompts that are not trained on the model consults "
            f"{rate:.0%} of the time, below the floor of {self._least:.0%}"
        )
        if self._good is None:
            start = "another checkpoint (remove the last one)" if state.global_step else "another model"
            raise TrainingError(
                f"before the first update of this run, at step {state.global_step}, {broken}: start from "
                f"{start} or lower floor_consult"
            )
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(self._good[1][name])
        self.stopped = f"stopped at step {state.global_step}: {broken}"
        self.stopped += f"; the weights of step {self._good[0]} were taken back"
        self._say(self.stopped)
        control.should_training_stop = True
