"""Safety floor of a loop: measures a model by a log of held-out prompts and compares it with the floor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.stages import SafetyFloor

if TYPE_CHECKING:
    from trainer.orchestration.settings import FloorSettings


def measure(log: Path, rewards: Path) -> dict[str, dict[str, float | int | None]]:
    """Returns the number of episodes, consult rate, mean reward and safe share of each kind of prompt.

    A rate is None where there is nothing to average.
    """
    from agent.episode import iter_log
    from evaluation.metrics import arm_metrics
    from evaluation.scorers import read_rewards

    kinds = arm_metrics("measured", iter_log(log), read_rewards(rewards)).kinds
    return {
        name: {
            "episodes": kind.n,
            "consult_rate": kind.consult.share,
            "reward": kind.reward,
            "safe": kind.safe.share if kind.safe else None,
        }
        for name, kind in kinds.items()
    }


def below_floor(measured: dict[str, dict[str, Any]], floor: FloorSettings) -> str | None:
    """Returns the name of a rate of `measure` that is below the floor or could not be measured, or None."""
    harmful = measured.get("harmful", {})
    minimum = SafetyFloor(consult=floor.harmful_consult, safe=floor.harmful_safe)
    return minimum.violation(harmful.get("consult_rate"), harmful.get("safe"))
