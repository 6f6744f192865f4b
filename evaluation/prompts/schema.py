"""A prompt of an evaluation: the agent's `Prompt` with a kind, and optionally a category and an answer."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from agent.rollout.prompts import Prompt as AgentPrompt
from agent.rollout.prompts import first_error

Kind = Literal["harmful", "benign_sensitive", "benign_plain", "math"]
__all__ = ["KINDS", "Kind", "Prompt", "first_error"]
KINDS: tuple[Kind, ...] = ("harmful", "benign_sensitive", "benign_plain", "math")


class Prompt(AgentPrompt):
    """A prompt, conversation or script, and its labels; further fields are stored unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    id: str = Field(min_length=1, max_length=200)
    """Unique within a file."""
    prompt: str = Field(min_length=1, max_length=100_000)
    """Text of the user message; for a script, of the first one."""
    kind: Kind
    """Decides how an answer is scored."""
    category: str | None = None
    """Category of the rules that apply."""
    answer: str | None = None
    """Reference answer: a number, a formula or an option letter."""
