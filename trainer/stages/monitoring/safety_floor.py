"""Safety floor: minimum rates on harmful prompts that a run does not train on.

Prompts share parameters: a model that learns to consult less on harmless prompts can unlearn it on harmful
ones. So held-out prompts are measured during training, and training stops below the floor, with the last good
weights if necessary. The stages measure in their own way (`logged` by token probabilities, `online` by
evaluation, the loop by a log); the thresholds, the messages and the rollback are here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.stages.monitoring.progress import Notify

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SafetyFloor:
    """Minimum shares of held-out harmful prompts, each from 0 to 1; None is not checked."""

    consult: float | None = None
    """Minimum share on which the model consults the rules."""
    safe: float | None = None
    """Minimum share that the model handles safely: it refuses, or the stage counts the reply as harmless."""

    def violation(self, consult: float | None, safe: float | None = None) -> str | None:
        """Returns a clause that names the measured rate below the floor, or None.

        Args:
            consult: measured consult rate; None where it could not be measured.
            safe: measured safe share; likewise.
        """
        for name, rate, minimum in (
            ("consult rate", consult, self.consult),
            ("share of safe replies", safe, self.safe),
        ):
            if minimum is None:
                continue
            if rate is None and minimum > 0:
                return (
                    f"the {name} on held-out harmful prompts could not be measured, so the floor of "
                    f"{100 * minimum:.4g}% cannot be checked: there were none, or no judge answered"
                )
            if rate is not None and rate < minimum:
                return (
                    f"the {name} on held-out harmful prompts is {100 * rate:.4g}%, below the floor of "
                    f"{100 * minimum:.4g}%"
                )
        return None


def held_out_problem(source: str, harmful: int, trained: int = 0) -> str | None:
    """Returns the reason why the prompts of `source` cannot serve as a safety floor, or None.

    Args:
        source: name of the prompts.
        harmful: number of harmful prompts among them.
        trained: number of these that the run trains on.
    """
    if harmful and not trained:
        return None
    contents = f"{trained} harmful prompts" if trained else "no harmful prompt"
    relation = "trains on" if trained else "does not train on"
    return (
        f"{source} holds {contents} that the run {relation}, so it cannot serve as a safety floor: name a "
        "file of other harmful prompts"
    )


@dataclass
class FloorMonitor:
    """Checks rates against a floor, keeps the last good weights, and stops the run below the floor."""

    floor: SafetyFloor
    notify: Notify
    rollback: bool = True
    """Whether a stop restores the last good weights."""
    stopped: str | None = None
    """Message of the stop; None while the run continues."""
    good_step: int | None = None
    """Step of the last good weights."""
    _weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def check(self, model: Any, step: int, consult: float | None, safe: float | None = None) -> str | None:
        """Saves the trainable weights if the rates reach the floor; otherwise returns the violation.

        They are copied to the host's memory: all weights of a model may not fit on a GPU twice.
        """
        if violation := self.floor.violation(consult, safe):
            return violation
        if self.rollback:
            self.good_step = step
            self._weights = {
                name: _local(value).detach().to("cpu", copy=True)
                for name, value in model.named_parameters()
                if value.requires_grad
            }
        return None

    def stop(self, model: Any, step: int, violation: str, control: Any) -> None:
        """Stops training, and restores the last good weights if there are any and `rollback` is on.

        Args:
            control: `transformers.TrainerControl` of the run.
        """
        import torch

        self.stopped = f"stopped at step {step}: {violation}"
        if self.good_step is not None:
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if name in self._weights:
                        _local(value).copy_(self._weights[name])
            self.stopped += f"; the weights of step {self.good_step} were restored"
        self.notify(self.stopped)
        control.should_training_stop = True


def _local(weights: Any) -> Any:
    """Returns this process' part of sharded weights (FSDP2), or weights that are not sharded."""
    return weights.to_local() if hasattr(weights, "to_local") else weights
