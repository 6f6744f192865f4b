"""Advantages of Inverse Frequency Policy Optimization (arXiv 2602.13562), in numpy, without torch or I/O."""

from trainer.ifpo.advantages import (
    Baseline,
    Frequency,
    Scale,
    ifpo_advantages,
    inverse_frequency_weights,
    split_advantages,
)
from trainer.ifpo.arrays import Floats
from trainer.ifpo.consult_cost import CostWhere, with_consultation_cost
from trainer.ifpo.safety_multiplier import updated_multiplier
from trainer.ifpo.stratified import decision_ratios, probabilities_disagree, token_advantages

__all__ = [
    "Baseline",
    "CostWhere",
    "Floats",
    "Frequency",
    "Scale",
    "decision_ratios",
    "ifpo_advantages",
    "inverse_frequency_weights",
    "probabilities_disagree",
    "split_advantages",
    "token_advantages",
    "updated_multiplier",
    "with_consultation_cost",
]
