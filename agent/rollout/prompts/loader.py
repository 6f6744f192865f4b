"""Reads the prompts of a run: JSON Lines with an `id` and a `prompt`, `messages` or `user_turns`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from agent.episode import numbered_lines
from agent.errors import LogError, PromptError
from agent.rollout.prompts.schema import Prompt, first_error


def read_prompts(path: Path) -> list[Prompt]:
    """Reads all prompts of a file.

    Raises:
        PromptError: if the file cannot be read or is empty, a line is not a prompt, or an id occurs twice.
    """
    prompts: list[Prompt] = []
    turn_ids: set[str] = set()
    try:
        for number, line in numbered_lines(path):
            try:
                prompt = Prompt.model_validate_json(line or b"")
            except ValidationError as error:
                raise PromptError(_not_a_prompt(error, number, path)) from error
            for id in {prompt.id, *(turn.prompt_id for turn in prompt.turns)}:
                if id in turn_ids:
                    raise PromptError(f"line {number} of {path} repeats the id {id!r}: ids must be unique")
                turn_ids.add(id)
            prompts.append(prompt)
    except LogError as error:
        raise PromptError(str(error)) from error
    if not prompts:
        raise PromptError(f"{path} contains no prompts")
    return prompts


def _not_a_prompt(error: ValidationError, number: int, path: Path) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    if detail["type"] == "prompt":  # its text says what to change
        return f"line {number} of {path} is not a prompt: {first_error(error)}"
    location = ".".join(str(part) for part in detail["loc"]) or "the line"
    if location == "prompt" and detail["type"] == "missing":
        return (
            f"line {number} of {path} has no text of the user: give `prompt`, `user_turns`, or `messages` "
            "that end with a user message"
        )
    return (
        f"line {number} of {path} is not a prompt ({location}: {detail['msg']}): "
        'each line must be an object such as {"id": "p1", "prompt": "..."}'
    )
