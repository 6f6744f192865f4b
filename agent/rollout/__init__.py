"""Runs one prompt as a state machine, or many prompts into one log."""

from agent.rollout.agent import Agent
from agent.rollout.batch import RunSummary, check_log_settings, run_prompts
from agent.rollout.context import RolloutContext
from agent.rollout.conversation import Conversation
from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS, ModeShare, parse_mode_shares
from agent.rollout.progress import ProgressView
from agent.rollout.prompt_file import Prompt, read_prompts

__all__ = [
    "Agent",
    "Conversation",
    "DEFAULT_DIRECT_DRAWS",
    "ModeShare",
    "ProgressView",
    "Prompt",
    "RolloutContext",
    "RunSummary",
    "check_log_settings",
    "parse_mode_shares",
    "read_prompts",
    "run_prompts",
]
