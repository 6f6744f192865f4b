"""A floor under what a model does on harmful prompts that it was not trained on.

Prompts share parameters: a model that learns to consult less on harmless prompts can forget to on harmful
ones. So it is measured, and below the floor training stops at the last good model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.orchestration.settings import Floor


def measure(log: Path, rewards: Path) -> dict[str, dict[str, float | int | None]]:
    """Consult rate and mean outcome by kind of prompt."""
    from agent.episode import iter_log
    from evaluation.metrics import arm_metrics
    from evaluation.scorers import read_rewards

    rated = read_rewards(rewards)
    kinds = arm_metrics("measured", iter_log(log), rated).kinds
    return {
        name: {
            "episodes": kind.n,
            "consult_rate": kind.consult.share,
            "reward": kind.reward,
            "safe": kind.safe.share if kind.safe else None,
        }
        for name, kind in kinds.items()
    }


def below_floor(measured: dict[str, dict[str, Any]], floor: Floor) -> str | None:
    """What fell below the floor, or could not be measured, in a sentence; None where nothing did."""
    harmful = measured.get("harmful", {})
    for key, least, what in (
        ("consult_rate", floor.harmful_consult, "consults the rules on"),
        ("safe", floor.harmful_safe, "handles safely"),
    ):
        share = harmful.get(key)
        if share is None and least > 0:
            return (
                f"whether the model {what} {least:.0%} of harmful prompts could not be measured: there were "
                "none, or no judge answered"
            )
        if share is not None and share < least:
            return (
                f"the model {what} {share:.0%} of harmful prompts it was not trained on, below the floor of "
                f"{least:.0%}"
            )
    return None
