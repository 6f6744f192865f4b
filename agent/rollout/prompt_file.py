"""Reads the prompts of a run: JSON Lines with at least `id` and `prompt`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.episode import numbered_lines
from agent.errors import LogError, PromptError


class Prompt(BaseModel):
    """One prompt. Other fields are preserved but not used; subclasses may declare them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    kind: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Reads all prompts of a file.

    Raises:
        PromptError: if the file cannot be read or is empty, a line is not a prompt, or an id occurs twice.
    """
    prompts: dict[str, Prompt] = {}
    try:
        for number, line in numbered_lines(path):
            try:
                prompt = Prompt.model_validate_json(line or b"")
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                location = ".".join(str(part) for part in first["loc"]) or "the line"
                raise PromptError(
                    f"line {number} of {path} is not a prompt ({location}: {first['msg']}): "
                    'each line must be an object such as {"id": "p1", "prompt": "..."}'
                ) from error
            if prompt.id in prompts:
                raise PromptError(f"line {number} of {path} repeats the id {prompt.id!r}: ids must be unique")
            prompts[prompt.id] = prompt
    except LogError as error:
        raise PromptError(str(error)) from error
    if not prompts:
        raise PromptError(f"{path} contains no prompts")
    return list(prompts.values())
