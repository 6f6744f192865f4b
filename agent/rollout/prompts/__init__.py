"""Prompts of a run: single messages, messages after a given history, and scripts of user turns."""

from agent.rollout.prompts.loader import read_prompts
from agent.rollout.prompts.messages import GivenMessage, check_order
from agent.rollout.prompts.schema import MAX_TURNS, Prompt, PromptTurn, first_error

__all__ = [
    "MAX_TURNS",
    "GivenMessage",
    "Prompt",
    "PromptTurn",
    "check_order",
    "first_error",
    "read_prompts",
]
