"""Renders episodes as token ids: which tokens the policy wrote, and where it decides."""

from trainer.tokens.decision import call_opening, consult_probabilities
from trainer.tokens.episode_tokens import TokenError, episode_tokens
from trainer.tokens.modes import RULE_TOOL, consultations_of, mode_of
from trainer.tokens.rendering import RenderingError

__all__ = [
    "RULE_TOOL",
    "RenderingError",
    "TokenError",
    "call_opening",
    "consult_probabilities",
    "consultations_of",
    "episode_tokens",
    "mode_of",
]
