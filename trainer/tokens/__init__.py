"""Episodes as token ids: the loss mask of the policy's tokens, and the position of its decision."""

from trainer.tokens.chat_template import RenderingError
from trainer.tokens.decision import call_opening, consult_probabilities
from trainer.tokens.episode_tokens import EpisodeTokens, TokenError, episode_tokens
from trainer.tokens.modes import ModeLosses, consultations_of, mode_of
from trainer.tokens.rendering import turn_end_ids

__all__ = [
    "EpisodeTokens",
    "ModeLosses",
    "RenderingError",
    "TokenError",
    "call_opening",
    "consult_probabilities",
    "consultations_of",
    "episode_tokens",
    "mode_of",
    "turn_end_ids",
]
