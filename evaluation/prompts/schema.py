"""A prompt of an evaluation: the agent's, with a kind and optionally a category and an answer."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from agent.rollout.prompt_file import Prompt as AgentPrompt

Kind = Literal["harmful", "benign_sensitive", "benign_plain", "math"]
KINDS: tuple[Kind, ...] = ("harmful", "benign_sensitive", "benign_plain", "math")


class Prompt(AgentPrompt):
    """One user message and its labels; further fields are stored unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    id: str = Field(min_length=1, max_length=200)
    """Unique within a file."""
    prompt: str = Field(min_length=1, max_length=100_000)
    """Text of the user message."""
    kind: Kind
    """Decides how an answer is scored."""
    category: str | None = None
    """Category of the rules that apply."""
    answer: str | None = None
    """Reference answer: a number, a formula or an option letter."""


def first_error(error: ValidationError) -> str:
    """Formats the first error of a failed validation as `field: message`."""
    detail = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(part) for part in detail["loc"])
    return f"{location}: {detail['msg']}" if location else detail["msg"]
