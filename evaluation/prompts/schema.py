"""TODO: docstring."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Kind = Literal["harmful", "benign_sensitive", "benign_plain", "math"]


KINDS: tuple[Kind, ...] = ("harmful", "benign_sensitive", "benign_plain", "math")


class PromptError(ValueError):
    """Prompts that cannot be used, said in one sentence with the file and line."""


class Prompt(BaseModel):
    """One user message with what is known of it; other columns are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=100_000)
    kind: Kind
    category: str | None = None
    answer: str | None = None


def first_error(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]
