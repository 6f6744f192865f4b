"""The decision bias: an offset on the token that opens a call, for a target consult rate."""

from trainer.reports.decision_bias.bias import BiasChoice, KindRates, choose_bias
from trainer.reports.decision_bias.decisions import Decision, Decisions, OpeningToken
from trainer.reports.decision_bias.logged import logged_decisions
from trainer.reports.decision_bias.measured import measured_decisions
from trainer.reports.decision_bias.plot import plot_bias
from trainer.reports.decision_bias.prompts import file_prompts, logged_prompts

__all__ = [
    "BiasChoice",
    "Decision",
    "Decisions",
    "KindRates",
    "OpeningToken",
    "file_prompts",
    "choose_bias",
    "logged_decisions",
    "logged_prompts",
    "measured_decisions",
    "plot_bias",
]
