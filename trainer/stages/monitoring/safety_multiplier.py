"""Safety multiplier of a run: its value is kept in the history of the run, and so in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.ifpo import updated_multiplier

METRIC = "ifpo/multiplier"
_KEY = "safety_multiplier"


@dataclass(frozen=True)
class SafetyMultiplier:
    """Settings of the multiplier on the advantages of harmful prompts; see `updated_multiplier`.

    The methods take the `transformers.TrainerState` of the run.
    """

    floor: float
    step: float
    largest: float
    watched: str = "consult"
    """Rate that the floor limits: `consult` or `safe`."""

    @classmethod
    def of(cls, config: Any) -> SafetyMultiplier | None:
        """Returns the multiplier of an `IFPOConfig`; None if it has no `harmful_floor`."""
        if config.harmful_floor is None:
            return None
        return cls(
            config.harmful_floor, config.multiplier_rate, config.multiplier_max, config.harmful_floor_rate
        )

    def value(self, state: Any) -> float:
        """Returns the present value: 1 before the first measurement."""
        latest = (entry[_KEY] for entry in reversed(state.log_history) if _KEY in entry)
        return float(next(latest, 1.0))

    def update(self, state: Any, rate: float | None) -> None:
        """Updates the value from a measured rate; None (nothing was measured) leaves it unchanged."""
        if rate is None:
            return
        value = updated_multiplier(
            self.value(state), rate, floor=self.floor, step=self.step, largest=self.largest
        )
        state.log_history[:] = [entry for entry in state.log_history if _KEY not in entry]
        state.log_history.append({"step": state.global_step, _KEY: float(value)})
